//! Which models this process claims nothing of: those that are paused here, and those that somebody has
//! paused in all processes.

use std::collections::HashSet;

use actix::{
    ActorFutureExt, AsyncContext, Context, Handler, Recipient, ResponseActFuture, WrapFuture,
};

use super::{
    SupervisorActor,
    desk::{Alive, Noted, Ordered, Pausing},
    messages::{Control, Pause, RequestError, Resume},
};
use crate::{Asyncable, store::turn::By};

/// What the supervisor asks of its desk.
pub(crate) struct DeskOf {
    pub(crate) orders: Recipient<Ordered>,
    pub(crate) alive: Recipient<Alive>,
    pub(crate) notes: Recipient<Noted>,
    pub(crate) pauses: Recipient<Pausing>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    here: HashSet<&'static str>,
    /// As far as this process has heard.
    everywhere: HashSet<String>,
    /// Orders that this process has carried out: what was asked before one says nothing of it.
    orders: u64,
    /// This process is saying that it is alive, and has to say it again.
    saying: bool,
    again: bool,
}

impl Pauses {
    pub(crate) fn of(everywhere: HashSet<String>) -> Self {
        Pauses { everywhere, ..Pauses::default() }
    }

    pub(crate) fn has(&self, model: &str) -> bool {
        self.here.contains(model) || self.everywhere.contains(model)
    }

    fn pause_here(&mut self, model: &'static str, pauses: bool) {
        match pauses {
            true => self.here.insert(model),
            false => self.here.remove(model),
        };
    }

    fn ordered(&mut self, model: &str, pauses: bool) {
        self.orders += 1;
        match pauses {
            true => self.everywhere.insert(model.to_owned()),
            false => self.everywhere.remove(model),
        };
    }

    /// `everywhere` was asked for when so many orders had been carried out.
    fn heard(&mut self, everywhere: HashSet<String>, orders: u64) {
        if self.orders == orders {
            self.everywhere = everywhere;
        }
    }
}

impl SupervisorActor {
    /// Says that this process is alive, and hears which models are paused in all.
    pub(super) fn say_alive(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.pauses.saying, true) {
            self.pauses.again = true;
            return;
        }
        let orders = self.pauses.orders;
        let said = self.desk.alive.send(Alive(self.alive.clone())).into_actor(self);
        ctx.spawn(said.map(move |everywhere, me, ctx| {
            me.pauses.saying = false;
            // The database is away, perhaps: the next sweep asks again.
            if let Ok(Some(everywhere)) = everywhere {
                me.pauses.heard(everywhere, orders);
                me.follow_pauses();
            }
            if std::mem::take(&mut me.pauses.again) {
                me.say_alive(ctx);
            }
        }));
    }

    /// Has each processor do as it is now, and this process say so.
    fn follow_pauses(&mut self) {
        for entry in self.entries.values() {
            let paused = self.pauses.has(entry.model);
            if let Some((_, known)) = self.alive.get_mut(entry.model)
                && *known != paused
            {
                *known = paused;
                self.pauses.again = true;
                entry.control.do_send(Control::Pause(paused));
            }
        }
    }

    fn pausing<M: Asyncable>(
        &mut self,
        pauses: bool,
        by: Option<By>,
        everywhere: bool,
        ctx: &mut Context<Self>,
    ) -> ResponseActFuture<Self, Result<(), RequestError>> {
        let model = M::COLUMNS.name;
        if let Err(error) = self.entry::<M>() {
            return Box::pin(actix::fut::ready(Err(error)));
        }
        if everywhere {
            let done = self.pause_everywhere(model.to_owned(), pauses, by);
            return Box::pin(done.map(|done, _, _| done.map(drop)));
        }
        self.pauses.pause_here(model, pauses);
        self.follow_pauses();
        self.say_again(ctx);
        let Some(by) = by else { return Box::pin(actix::fut::ready(Ok(()))) };
        let action = if pauses { "paused" } else { "resumed" };
        let kept = self.desk.notes.send(Noted { action, target: model, by });
        Box::pin(async move { kept.await? }.into_actor(self))
    }

    fn pause_everywhere(
        &mut self,
        model: String,
        pauses: bool,
        by: Option<By>,
    ) -> ResponseActFuture<Self, Result<bool, RequestError>> {
        let asked = self.desk.pauses.send(Pausing { model: model.clone(), pauses, by });
        let asked = async move { asked.await? }.into_actor(self);
        Box::pin(asked.map(move |done, me: &mut Self, ctx| {
            if done.is_ok() {
                me.pauses.ordered(&model, pauses);
                me.follow_pauses();
                me.say_again(ctx);
            }
            done
        }))
    }

    /// Says that this process is alive, if what it says of itself has changed.
    fn say_again(&mut self, ctx: &mut Context<Self>) {
        if std::mem::take(&mut self.pauses.again) {
            self.say_alive(ctx);
        }
    }
}

impl<M: Asyncable> Handler<Pause<M>> for SupervisorActor {
    type Result = ResponseActFuture<Self, Result<(), RequestError>>;

    fn handle(&mut self, pause: Pause<M>, ctx: &mut Context<Self>) -> Self::Result {
        self.pausing::<M>(true, pause.by, pause.everywhere, ctx)
    }
}

impl<M: Asyncable> Handler<Resume<M>> for SupervisorActor {
    type Result = ResponseActFuture<Self, Result<(), RequestError>>;

    fn handle(&mut self, resume: Resume<M>, ctx: &mut Context<Self>) -> Self::Result {
        self.pausing::<M>(false, resume.by, resume.everywhere, ctx)
    }
}

/// Pauses or resumes a model in all processes, by its name; false where it was so already, nothing if no
/// processor here works on it.
#[cfg(feature = "dashboard")]
pub(crate) struct PauseByName {
    pub(crate) model: String,
    pub(crate) pauses: bool,
    pub(crate) by: By,
}

#[cfg(feature = "dashboard")]
impl actix::Message for PauseByName {
    type Result = Result<Option<bool>, RequestError>;
}

#[cfg(feature = "dashboard")]
impl Handler<PauseByName> for SupervisorActor {
    type Result = ResponseActFuture<Self, Result<Option<bool>, RequestError>>;

    fn handle(&mut self, pause: PauseByName, _: &mut Context<Self>) -> Self::Result {
        let PauseByName { model, pauses, by } = pause;
        if !self.alive.contains_key(model.as_str()) {
            return Box::pin(actix::fut::ready(Ok(None)));
        }
        let done = self.pause_everywhere(model, pauses, Some(by));
        Box::pin(done.map(|done, _, _| done.map(Some)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models(names: &[&str]) -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_model_is_paused_while_it_is_here_or_everywhere() {
        let mut pauses = Pauses::of(models(&["letters"]));
        assert!(pauses.has("letters") && !pauses.has("parcels"));
        pauses.pause_here("letters", true);
        pauses.heard(models(&[]), 0);
        assert!(pauses.has("letters"), "it still is here");
        pauses.pause_here("letters", false);
        assert!(!pauses.has("letters"));
    }

    #[test]
    fn what_was_read_before_an_order_does_not_undo_it() {
        let mut pauses = Pauses::default();
        pauses.ordered("letters", true);
        pauses.heard(models(&[]), 0);
        assert!(pauses.has("letters"));
        pauses.heard(models(&["parcels"]), 1);
        assert!(!pauses.has("letters") && pauses.has("parcels"));
    }
}
