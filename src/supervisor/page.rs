//! What the operator's page asks: by names and texts, since it knows no model's type.

use std::{sync::Arc, time::Duration};

use actix::{ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseFuture, WrapFuture};
use tokio::sync::oneshot;

use super::{
    RequestError, SupervisorActor,
    desk::{HouseAsk, Ordered},
    processor::ProcessorActor,
};
use crate::{
    Asyncable, Counts, Processor, Service, Stored,
    asyncable::Key as ModelKey,
    store::{
        Moment, StoreConnection,
        actor::Ask,
        bulk::{self, Bulk, Deed, NewBulk, Preview},
        explain::Line,
        messages,
        mine::{self, Mine},
        page::{self, Cursor, Group, House, Key, List, ModelOverview, Past, RowPage, Selection},
        progress::{self, Progress},
        report::{self, ModelReport},
        service::Order,
        submit::{Canceled, Restarted},
        tries::{self, Hour},
        turn::{Answer, By, Request},
    },
};

/// What is asked of one model.
#[derive(Clone, Debug)]
pub(crate) enum PageAsk {
    Overview,
    /// How many rows are due or fail.
    Waits,
    List {
        selection: Selection,
        after: Option<Cursor>,
        most: usize,
    },
    /// Rows by id or subject.
    Find {
        what: String,
    },
    /// `before`: of its tries, those that began before then.
    Row {
        id: String,
        before: Option<Moment>,
    },
    /// What was done in the hour that begins then.
    Hour {
        from: Moment,
        after: Option<Key>,
    },
    Report,
    /// What was finished so long ago counts as going on.
    Progress {
        lately: Duration,
    },
    Preview {
        selection: Selection,
        named: Option<Vec<String>>,
        deed: Deed,
    },
    Begin(Box<NewBulk>),
    Bulk {
        id: String,
    },
    Stop {
        id: String,
        who: String,
    },
    /// `send`: also to the row's user.
    Note {
        id: String,
        who: String,
        text: String,
        send: bool,
    },
    /// Somebody's own rows.
    Mine {
        user: String,
    },
    Restart {
        ids: Vec<String>,
        by: By,
    },
    Cancel {
        id: String,
        by: By,
    },
}

/// The answer.
#[derive(Debug)]
pub(crate) enum PageFact {
    Overview(ModelOverview),
    /// With what the model's processor says of the services that it calls.
    Waits(Waits),
    List(List),
    Row(Box<RowPage>),
    /// There is no such row any more.
    Gone(Box<Past>),
    Hour(Hour),
    Report(ModelReport),
    Progress(Progress),
    Preview(Box<Preview>),
    Begun,
    /// With the rows that it has left alone, as they stand now.
    Bulk(Box<Bulk>, Vec<Line>),
    Stopped,
    /// Whether also to the row's user.
    Noted {
        sent: bool,
    },
    Mine(Vec<Mine>),
    Restarted(Restarted),
    Canceled(Canceled),
    /// The model names no column for it.
    NotCanceled,
    /// There is no such row, or it cannot be one's id.
    NoRow,
}

/// The rows of a model that wait for its services.
#[derive(Debug)]
pub(crate) struct Waits {
    pub(crate) model: &'static str,
    /// Those that are due and those that fail.
    pub(crate) counts: Counts,
    pub(crate) services: Arc<[Service]>,
}

/// How hard each process may call a service: starts a second and attempts at once, where there is a limit.
pub(crate) fn limits_of(name: &str, waiting: &[Waits]) -> (Option<u32>, Option<usize>) {
    let mut services = waiting.iter().flat_map(|waits| waits.services.iter());
    services.find(|service| service.name() == name).map(Service::limits).unwrap_or_default()
}

/// As a processor is asked it by its supervisor.
pub(crate) struct ModelAsked {
    ask: PageAsk,
    /// How long ago a process may have been heard of that is still alive.
    alive: Duration,
}

impl Message for ModelAsked {
    type Result = Result<PageFact, RequestError>;
}

impl<P, C> ProcessorActor<P, C>
where
    P: Processor<Model: Stored<C::Backend>>,
    C: StoreConnection,
{
    fn read<T: Send + 'static>(
        &self,
        ask: impl Fn(&mut C, crate::store::Moment) -> diesel::QueryResult<T> + Send + 'static,
    ) -> ResponseFuture<Result<T, RequestError>> {
        let asked = self.reads.send(Ask(Box::new(move |conn: &mut C, now| ask(conn, now))));
        Box::pin(async move { asked.await?.map_err(RequestError::Database) })
    }

    /// Takes the next batch of what somebody does to many rows, and the next, until none is to be taken now.
    pub(crate) fn bulk(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.state.bulk, true) {
            return;
        }
        let batch = self
            .store
            .send(Ask(Box::new(move |conn: &mut C, now| bulk::go_on::<P::Model, C>(conn, now))));
        ctx.spawn(batch.into_actor(self).map(|taken, me, ctx| {
            me.state.bulk = false;
            match taken.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(Some(sent)) => {
                    me.events.sent(P::Model::COLUMNS.name, sent);
                    me.pump.wake();
                    me.go(ctx);
                    me.bulk(ctx);
                }
                Ok(None) => {}
                Err(error) => {
                    let model = P::Model::COLUMNS.name;
                    log::warn!(model, error = error.as_str(); "a batch of {model} waits: {error}");
                }
            }
        }));
    }

    fn grant(
        &mut self,
        request: Request<<P::Model as Asyncable>::Id>,
        ctx: &mut Context<Self>,
    ) -> oneshot::Receiver<Result<Answer, RequestError>> {
        let (answer, answered) = oneshot::channel();
        self.request(request, answer, ctx);
        answered
    }
}

impl<P, C> Handler<ModelAsked> for ProcessorActor<P, C>
where
    P: Processor<Model: Stored<C::Backend>>,
    C: StoreConnection,
{
    type Result = ResponseFuture<Result<PageFact, RequestError>>;

    fn handle(&mut self, asked: ModelAsked, ctx: &mut Context<Self>) -> Self::Result {
        let ModelAsked { ask, alive } = asked;
        let id = |id: &str| <P::Model as Asyncable>::Id::from_page(id);
        match ask {
            PageAsk::Overview => {
                // On two connections, at the same time.
                let causes = self.read(move |conn, now| page::causes::<P::Model, C>(conn, now));
                let flow = self.read(move |conn, now| page::flow::<P::Model, C>(conn, now, alive));
                Box::pin(async move {
                    let (causes, flow) = futures_util::future::try_join(causes, flow).await?;
                    let model = P::Model::COLUMNS.name;
                    Ok(PageFact::Overview(ModelOverview::of(model, causes, flow)))
                })
            }
            PageAsk::Waits => {
                let read = self.read(move |conn, now| page::waits::<P::Model, C>(conn, now));
                let (model, services) = (P::Model::COLUMNS.name, self.services.clone());
                Box::pin(async move {
                    let counts = read.await?;
                    Ok(PageFact::Waits(Waits { model, counts, services }))
                })
            }
            PageAsk::List { selection, after, most } => {
                let read = self.read(move |conn, now| {
                    let after = after.as_ref();
                    page::list::<P::Model, C>(conn, now, alive, &selection, after, most)
                });
                Box::pin(async move { Ok(PageFact::List(read.await?)) })
            }
            PageAsk::Find { what } => {
                let read = self.read(move |conn, now| {
                    page::find::<P::Model, C>(conn, &what, id(&what), now, alive)
                });
                Box::pin(async move { Ok(PageFact::List(read.await?)) })
            }
            PageAsk::Preview { selection, named, deed } => {
                let read = self.read(move |conn, now| {
                    let named = named.as_deref();
                    bulk::preview::<P::Model, C>(conn, &selection, named, deed, now, alive)
                });
                Box::pin(async move { Ok(PageFact::Preview(Box::new(read.await?))) })
            }
            PageAsk::Begin(new) => {
                let model = P::Model::COLUMNS.name;
                let asked = self.store.send(Ask(Box::new(move |conn: &mut C, now| {
                    bulk::begin(conn, model, &new, now)
                })));
                let begun = asked.into_actor(self).map(|begun, me, ctx| {
                    begun?.map_err(RequestError::Database)?;
                    me.bulk(ctx);
                    Ok(PageFact::Begun)
                });
                let (answer, answered) = oneshot::channel();
                // Nobody may be waiting any more.
                ctx.spawn(begun.map(|begun, _, _| drop(answer.send(begun))));
                Box::pin(async move { answered.await.unwrap_or(Err(stopped())) })
            }
            PageAsk::Bulk { id } => {
                let read =
                    self.read(move |conn, now| bulk::shown::<P::Model, C>(conn, &id, now, alive));
                Box::pin(async move {
                    let shown = read.await?;
                    Ok(shown.map_or(PageFact::NoRow, |(bulk, left)| {
                        PageFact::Bulk(Box::new(bulk), left)
                    }))
                })
            }
            PageAsk::Stop { id, who } => {
                let model = P::Model::COLUMNS.name;
                let asked = self.store.send(Ask(Box::new(move |conn: &mut C, now| {
                    bulk::stop(conn, model, &id, &who, now)
                })));
                Box::pin(async move {
                    asked.await?.map_err(RequestError::Database)?;
                    Ok(PageFact::Stopped)
                })
            }
            PageAsk::Row { id: text, before } => {
                let Some(id) = id(&text) else { return Box::pin(async { Ok(PageFact::NoRow) }) };
                let read = self.read(move |conn, now| {
                    let line = page::row::<P::Model, C>(conn, &id, now, alive)?;
                    let model = P::Model::COLUMNS.name;
                    Ok((line, page::past(conn, model, &id.to_string(), before)?))
                });
                Box::pin(async move {
                    Ok(match read.await? {
                        (Some(line), past) => PageFact::Row(Box::new(RowPage { line, past })),
                        (None, past) if past.is_empty() => PageFact::NoRow,
                        (None, past) => PageFact::Gone(Box::new(past)),
                    })
                })
            }
            PageAsk::Hour { from, after } => {
                let model = P::Model::COLUMNS.name;
                let read = self.read(move |conn, _| tries::hour(conn, model, from, after.as_ref()));
                Box::pin(async move { Ok(PageFact::Hour(read.await?)) })
            }
            PageAsk::Report => {
                // On two connections, at the same time.
                let first = self.read(report::first_half::<P::Model, C>);
                let second = self.read(report::second_half::<P::Model, C>);
                Box::pin(async move {
                    let (first, second) = futures_util::future::try_join(first, second).await?;
                    let model = P::Model::COLUMNS.name;
                    Ok(PageFact::Report(ModelReport::of(model, first, second)))
                })
            }
            PageAsk::Progress { lately } => {
                let services = self.services.clone();
                let read = self.read(move |conn, now| {
                    let services: Vec<&str> = services.iter().map(crate::Service::name).collect();
                    progress::progress::<P::Model, C>(conn, &services, now, alive, lately)
                });
                Box::pin(async move { Ok(PageFact::Progress(read.await?)) })
            }
            PageAsk::Mine { user } => {
                let read =
                    self.read(move |conn, now| mine::mine::<P::Model, C>(conn, &user, now, alive));
                Box::pin(async move { Ok(PageFact::Mine(read.await?)) })
            }
            PageAsk::Note { id: text, who, text: note, send } => {
                let Some(id) = id(&text) else { return Box::pin(async { Ok(PageFact::NoRow) }) };
                let asked = self.store.send(Ask(Box::new(move |conn: &mut C, now| {
                    conn.write(|conn| {
                        let known = page::row::<P::Model, C>(conn, &id, now, Duration::ZERO)?;
                        if known.is_none() {
                            return Ok::<_, diesel::result::Error>(None);
                        }
                        let model = P::Model::COLUMNS.name;
                        page::note(conn, model, &id.to_string(), &who, &note, now)?;
                        let sent = match send {
                            true => messages::note::<P::Model, C>(conn, &id, now, &who, &note)?,
                            false => None,
                        };
                        Ok(Some(sent))
                    })
                })));
                let events = self.events.clone();
                Box::pin(async move {
                    let noted = asked.await?.map_err(RequestError::Database)?;
                    let Some(sent) = noted else { return Ok(PageFact::NoRow) };
                    let to_user = sent.is_some();
                    events.sent(P::Model::COLUMNS.name, sent);
                    Ok(PageFact::Noted { sent: to_user })
                })
            }
            PageAsk::Restart { ids, by } => {
                let ids = ids.iter().filter_map(|text| id(text)).collect();
                let answered = self.grant(Request::Restart { ids, by: Some(by) }, ctx);
                Box::pin(async move {
                    match answered.await.unwrap_or(Err(stopped()))? {
                        Answer::Restarted(restarted) => Ok(PageFact::Restarted(restarted)),
                        other => refused(other),
                    }
                })
            }
            PageAsk::Cancel { .. } if P::Model::COLUMNS.canceled_at.is_none() => {
                Box::pin(async { Ok(PageFact::NotCanceled) })
            }
            PageAsk::Cancel { id: text, by } => {
                let Some(id) = id(&text) else { return Box::pin(async { Ok(PageFact::NoRow) }) };
                let answered = self.grant(Request::Cancel { id, by: Some(by) }, ctx);
                Box::pin(async move {
                    match answered.await.unwrap_or(Err(stopped()))? {
                        Answer::Canceled(canceled) => Ok(PageFact::Canceled(canceled)),
                        other => refused(other),
                    }
                })
            }
        }
    }
}

fn stopped() -> RequestError {
    RequestError::Stopped(actix::MailboxError::Closed)
}

fn refused(answer: Answer) -> Result<PageFact, RequestError> {
    match answer {
        Answer::Refused(why) => Err(RequestError::Database(why)),
        _ => Ok(PageFact::NoRow),
    }
}

/// Reading an id out of an address.
trait FromPage: Sized {
    fn from_page(text: &str) -> Option<Self>;
}

impl<K: ModelKey> FromPage for K {
    fn from_page(text: &str) -> Option<Self> {
        let id = K::from_str(text).ok()?;
        // One spelling of each: `+7` and `07` name no row. NUL is in no text of PostgreSQL's.
        (id.to_string() == text && !text.contains('\0')).then_some(id)
    }
}

/// What the page asks the supervisor.
pub(crate) struct AskModel {
    pub(crate) model: String,
    pub(crate) ask: PageAsk,
}

impl Message for AskModel {
    /// Nothing, if there is no such model here.
    type Result = Result<Option<PageFact>, RequestError>;
}

impl Handler<AskModel> for SupervisorActor {
    type Result = ResponseFuture<Result<Option<PageFact>, RequestError>>;

    fn handle(&mut self, asked: AskModel, _: &mut Context<Self>) -> Self::Result {
        if let Err(stopped) = self.goes_on() {
            return Box::pin(std::future::ready(Err(stopped)));
        }
        let entry = self.entries.values().find(|entry| entry.model == asked.model);
        let asked = ModelAsked { ask: asked.ask, alive: self.alive_for };
        let sent = entry.map(|entry| entry.page.send(asked));
        Box::pin(async move {
            match sent {
                Some(sent) => sent.await?.map(Some),
                None => Ok(None),
            }
        })
    }
}

/// The names of the models and services, for the page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) models: Vec<(&'static str, Vec<String>)>,
}

impl Names {
    /// All that a model's processor names.
    pub(crate) fn services_of(&self, model: &str) -> &[String] {
        let of = self.models.iter().find(|(name, _)| *name == model);
        of.map_or(&[], |(_, services)| services)
    }

    /// The service that the code of these rows of a model names, or all that it calls.
    pub(crate) fn services_named(&self, model: &str, group: &Group) -> &[String] {
        let (services, code) = (self.services_of(model), group.code.as_deref().unwrap_or_default());
        let is_named = |name: &&String| {
            code.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(['.', '_']))
        };
        services.iter().find(is_named).map_or(services, std::slice::from_ref)
    }
}

pub(crate) struct GetNames;

impl Message for GetNames {
    type Result = Result<Names, RequestError>;
}

impl Handler<GetNames> for SupervisorActor {
    type Result = Result<Names, RequestError>;

    fn handle(&mut self, _: GetNames, _: &mut Context<Self>) -> Self::Result {
        self.goes_on()?;
        let names = |services: &str| {
            let names = services.split(',').filter(|name| !name.is_empty());
            names.map(ToOwned::to_owned).collect()
        };
        let models = self.alive.iter().map(|(model, (services, _))| (*model, names(services)));
        Ok(Names { models: models.collect() })
    }
}

/// What stands beside the models; with the past of a service or a model, if one is named.
pub(crate) struct GetHouse(pub(crate) Option<String>);

impl Message for GetHouse {
    type Result = Result<House, RequestError>;
}

impl Handler<GetHouse> for SupervisorActor {
    type Result = ResponseFuture<Result<House, RequestError>>;

    fn handle(&mut self, house: GetHouse, _: &mut Context<Self>) -> Self::Result {
        if let Err(stopped) = self.goes_on() {
            return Box::pin(std::future::ready(Err(stopped)));
        }
        let services = self.alive.values().flat_map(|(services, _)| services.split(','));
        let services: std::collections::BTreeSet<String> =
            services.filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect();
        let services = services.into_iter().collect();
        let asked = self.house.send(HouseAsk { services, service: house.0, alive: self.alive_for });
        Box::pin(async move { asked.await? })
    }
}

/// An operator's order by the service's name. Answers nothing, if no model calls it.
pub(crate) struct OrderByName {
    pub(crate) service: String,
    pub(crate) by: String,
    pub(crate) order: Order,
}

impl Message for OrderByName {
    type Result = Result<Option<bool>, RequestError>;
}

impl Handler<OrderByName> for SupervisorActor {
    type Result = ResponseFuture<Result<Option<bool>, RequestError>>;

    fn handle(&mut self, ordered: OrderByName, _: &mut Context<Self>) -> Self::Result {
        let OrderByName { service, by, order } = ordered;
        let known = self.alive.values().any(|(names, _)| names.split(',').any(|n| n == service));
        if !known {
            return Box::pin(std::future::ready(Ok(None)));
        }
        let asked = self.desk.orders.send(Ordered { service, by, order });
        let others = self.others.clone();
        Box::pin(async move {
            let done = asked.await??;
            others.wake_all();
            Ok(Some(done))
        })
    }
}
