//! The kinds of host: an actix-web server, a multi-thread tokio runtime, a thread with no runtime at all.
//! A supervisor has its own thread, so each of them starts, uses and stops it in the same way.

mod support;

use std::{
    collections::HashSet,
    pin::pin,
    sync::{Arc, Barrier},
    task::{Context, Poll, Wake, Waker},
    thread::{Thread, ThreadId},
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, error, http::StatusCode, rt::System, web};
use asyncable::{
    Asyncable, Attempt, Columns, Handle, Outcome, Processor, RequestError, Status, StoreConnection,
    Stored, Submit, Supervisor, columns,
};
use diesel::{
    prelude::*,
    r2d2::{ConnectionManager, CustomizeConnection, Pool},
};
use tokio::sync::mpsc;

use support::{TestConnection, on_each_backend};

mod schema {
    diesel::table! {
        orders (id) {
            id -> BigInt,
            what -> Text,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
use schema::orders;

/// Twelve orders, none of them submitted.
const DDL: &str = "CREATE TABLE orders (id {key}, what TEXT NOT NULL, submitted_at TIMESTAMP, \
    attempted_at TIMESTAMP, processed_at TIMESTAMP, error TEXT); \
    INSERT INTO orders (what) VALUES ('tea'), ('tea'), ('tea'), ('tea'), ('tea'), ('tea'), \
    ('tea'), ('tea'), ('tea'), ('tea'), ('tea'), ('tea');";

#[derive(Queryable, Selectable, Identifiable)]
struct Order {
    id: i64,
    what: String,
}

impl Asyncable for Order {
    type Id = i64;
    const COLUMNS: Columns<orders::table> = columns!(orders);
}

/// Tells what it has been given, and keeps something that only a live supervisor keeps.
#[derive(Clone)]
struct Deliver {
    delivered: mpsc::UnboundedSender<(i64, String)>,
    _alive: Arc<()>,
}

impl Processor for Deliver {
    type Model = Order;

    async fn process(&self, order: &Order, _: &Attempt) -> Outcome {
        Ok(self.delivered.send((order.id, order.what.clone()))?)
    }
}

const SOON: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);

/// A supervisor that finds nothing by itself: rows are processed because the host said so.
fn start<C>(url: String) -> (Handle, mpsc::UnboundedReceiver<(i64, String)>)
where
    C: StoreConnection,
    Order: Stored<C::Backend>,
{
    let (delivered, deliveries) = mpsc::unbounded_channel();
    let handle = Supervisor::<C>::new(url)
        .sweep_every(Duration::from_secs(3600))
        .processor(Deliver { delivered, _alive: Arc::default() })
        .start()
        .expect("it starts");
    (handle, deliveries)
}

/// Runs a future on this thread, with no runtime of any kind.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// The ids that were delivered, in order of id.
fn ids(deliveries: impl IntoIterator<Item = (i64, String)>) -> Vec<i64> {
    let mut ids: Vec<i64> = deliveries.into_iter().map(|(id, _)| id).collect();
    ids.sort_unstable();
    ids
}

on_each_backend! {
    type Connections = Pool<ConnectionManager<Conn>>;

    /// On SQLite a host's connections wait for the write lock, or now and then are refused.
    #[derive(Debug)]
    struct SetUp;

    impl CustomizeConnection<Conn, diesel::r2d2::Error> for SetUp {
        fn on_acquire(&self, conn: &mut Conn) -> Result<(), diesel::r2d2::Error> {
            conn.set_up();
            Ok(())
        }
    }

    fn processed(db: &Db) -> Vec<i64> {
        let processed = orders::table.filter(Order::processed()).order(orders::id);
        processed.select(orders::id).load(&mut db.conn()).expect("asked")
    }

    /// Writes an order and submits it in one transaction of the host's own.
    async fn order(what: String, pool: web::Data<Connections>, asyncable: web::Data<Handle>) -> actix_web::Result<String> {
        let write = move || -> Result<i64, Box<dyn std::error::Error + Send + Sync>> {
            let conn = &mut pool.get()?;
            let id = conn.transaction(|conn| {
                let insert = diesel::insert_into(orders::table).values(orders::what.eq(what));
                let id = insert.returning(orders::id).get_result(conn)?;
                Order::submit(conn, id)?;
                QueryResult::Ok(id)
            })?;
            Ok(id)
        };
        let id = web::block(write).await?.map_err(error::ErrorInternalServerError)?;
        asyncable.wake::<Order>();
        Ok(id.to_string())
    }

    /// Submits an order that is there; answered when that is durable.
    async fn again(id: web::Path<i64>, asyncable: web::Data<Handle>) -> actix_web::Result<HttpResponse> {
        match asyncable.send(Submit::<Order>::new(*id)).await {
            Ok(()) => Ok(HttpResponse::Accepted().finish()),
            Err(missing @ RequestError::NotFound { .. }) => Err(error::ErrorNotFound(missing)),
            Err(other) => Err(error::ErrorServiceUnavailable(other)),
        }
    }

    async fn status(id: web::Path<i64>, pool: web::Data<Connections>) -> actix_web::Result<String> {
        let read = move || -> Result<Status, Box<dyn std::error::Error + Send + Sync>> {
            Ok(orders::table.find(*id).select(Order::status()).first(&mut pool.get()?)?)
        };
        let status = web::block(read).await?.map_err(error::ErrorInternalServerError)?;
        Ok(status.to_string())
    }

    /// What a host's `main` is: the server runs until `client` has what it wants.
    #[actix_web::main]
    async fn serve<T>(db: &Db, client: impl AsyncFnOnce(String) -> T) -> T {
        let (handle, _deliveries) = start::<Conn>(db.url());
        let pool = Pool::builder().max_size(2).connection_customizer(Box::new(SetUp));
        let pool = pool.build(ConnectionManager::<Conn>::new(db.url())).expect("a pool");
        let pool = web::Data::new(pool);
        let asyncable = web::Data::new(handle.clone());
        let app = move || {
            App::new()
                .app_data(pool.clone())
                .app_data(asyncable.clone())
                .route("/orders", web::post().to(order))
                .route("/orders/{id}/again", web::post().to(again))
                .route("/orders/{id}", web::get().to(status))
        };
        let server = HttpServer::new(app).workers(2).disable_signals().bind("127.0.0.1:0").expect("a free port");
        let address = server.addrs()[0];
        let server = server.run();
        let stop = server.handle();
        actix_web::rt::spawn(server);
        let done = client(format!("http://{address}/orders")).await;
        stop.stop(true).await;
        handle.shutdown(SOON).await;
        done
    }

    async fn sees(client: &awc::Client, url: &str, wanted: &str) {
        let look = async {
            let mut ticks = actix_web::rt::time::interval(Duration::from_millis(20));
            loop {
                ticks.tick().await;
                let mut answer = client.get(url).send().await.expect("an answer");
                if answer.body().await.expect("a body") == wanted {
                    break;
                }
            }
        };
        let seen = tokio::time::timeout(MINUTE, look).await;
        seen.unwrap_or_else(|_| panic!("{url} is {wanted} within a minute"));
    }

    #[test]
    fn a_row_submitted_over_http_to_an_actix_host_is_seen_processed_over_http() {
        let db = Db::migrated(DDL);
        serve(&db, async |orders_url| {
            let client = awc::Client::default();
            // In the host's own transaction, on a pooled connection.
            let mut created = client.post(&orders_url).send_body("coffee").await.expect("an answer");
            assert_eq!(created.status(), StatusCode::OK);
            let id = created.body().await.expect("a body");
            assert_eq!(id, "13");
            sees(&client, &format!("{orders_url}/13"), "processed").await;
            // As a message.
            sees(&client, &format!("{orders_url}/1"), "not_submitted").await;
            let again = client.post(format!("{orders_url}/1/again")).send().await.expect("an answer");
            assert_eq!(again.status(), StatusCode::ACCEPTED);
            sees(&client, &format!("{orders_url}/1"), "processed").await;
            let mut missing = client.post(format!("{orders_url}/99/again")).send().await.expect("an answer");
            assert_eq!(missing.status(), StatusCode::NOT_FOUND);
            assert_eq!(missing.body().await.expect("a body"), "no row 99 in orders");
        });
        assert_eq!(processed(&db), [1, 13]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn tasks_on_several_threads_of_a_tokio_host_submit_and_all_rows_are_processed() {
        let db = Db::migrated(DDL);
        let (handle, mut deliveries) = start::<Conn>(db.url());
        // Three meet, each on a thread of its own, before they submit.
        let meeting = Arc::new(Barrier::new(3));
        let submit_four = |first: i64| {
            let (handle, meeting) = (handle.clone(), meeting.clone());
            tokio::spawn(async move {
                meeting.wait();
                let thread = std::thread::current().id();
                for id in first..first + 4 {
                    handle.send(Submit::<Order>::new(id)).await?;
                }
                Ok::<ThreadId, RequestError>(thread)
            })
        };
        let mut threads = HashSet::new();
        for submitted in [submit_four(1), submit_four(5), submit_four(9)] {
            threads.insert(submitted.await.expect("a task").expect("durable"));
        }
        assert_eq!(threads.len(), 3);
        let mut delivered = Vec::new();
        while delivered.len() < 12 {
            let next = tokio::time::timeout(MINUTE, deliveries.recv()).await;
            delivered.push(next.expect("within a minute").expect("a processor"));
        }
        handle.shutdown(SOON).await;
        let all: Vec<i64> = (1..=12).collect();
        assert_eq!((ids(delivered), processed(&db)), (all.clone(), all));
    }

    #[test]
    fn a_host_without_any_runtime_starts_submits_and_stops() {
        let db = Db::migrated(DDL);
        let (handle, mut deliveries) = start::<Conn>(db.url());
        block_on(handle.send(Submit::<Order>::new(1))).expect("durable");
        assert_eq!(block_on(deliveries.recv()), Some((1, "tea".to_owned())));
        // A submission of the host's own, and the wake that needs no waiting.
        Order::submit(&mut db.conn(), 2).expect("submitted");
        handle.wake::<Order>();
        assert_eq!(block_on(deliveries.recv()), Some((2, "tea".to_owned())));
        block_on(handle.shutdown(SOON));
        assert_eq!(processed(&db), [1, 2]);
    }

    #[test]
    fn one_handle_serves_actix_tokio_and_plain_threads_at_once() {
        let db = Db::migrated(DDL);
        let (handle, mut deliveries) = start::<Conn>(db.url());
        let four = async |handle: &Handle, first: i64| {
            for id in first..first + 4 {
                handle.send(Submit::<Order>::new(id)).await?;
            }
            Ok::<(), RequestError>(())
        };
        let tokio_host = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
        let tokio_host = tokio_host.expect("a runtime");
        std::thread::scope(|threads| {
            threads.spawn(|| System::new().block_on(four(&handle, 1)).expect("durable"));
            threads.spawn(|| tokio_host.block_on(four(&handle, 5)).expect("durable"));
            threads.spawn(|| block_on(four(&handle, 9)).expect("durable"));
        });
        let delivered = (0..12).map(|_| deliveries.blocking_recv().expect("a processor"));
        let delivered = ids(delivered);
        block_on(handle.shutdown(SOON));
        let all: Vec<i64> = (1..=12).collect();
        assert_eq!((delivered, processed(&db)), (all.clone(), all));
    }

    #[test]
    fn a_supervisor_outlives_the_actix_system_it_was_started_in() {
        let db = Db::migrated(DDL);
        let first = System::new();
        let (handle, mut deliveries) = first.block_on(async { start::<Conn>(db.url()) });
        first.block_on(handle.send(Submit::<Order>::new(1))).expect("durable");
        assert_eq!(first.block_on(deliveries.recv()), Some((1, "tea".to_owned())));
        first.block_on(async { System::current().stop() });
        first.run().expect("stopped");

        block_on(handle.send(Submit::<Order>::new(2))).expect("durable, between two systems");
        assert_eq!(deliveries.blocking_recv(), Some((2, "tea".to_owned())));

        let second = System::new();
        second.block_on(handle.send(Submit::<Order>::new(3))).expect("durable");
        assert_eq!(second.block_on(deliveries.recv()), Some((3, "tea".to_owned())));
        second.block_on(handle.shutdown(SOON));
        assert_eq!(processed(&db), [1, 2, 3]);
    }

    #[test]
    fn after_a_shutdown_the_handle_says_so_and_nothing_of_the_supervisor_is_left() {
        let db = Db::migrated(DDL);
        let (delivered, _deliveries) = mpsc::unbounded_channel();
        let alive = Arc::new(());
        let (in_processors, in_stores) = (Arc::downgrade(&alive), alive.clone());
        let url = db.url();
        let connect = move || {
            let _alive = &in_stores;
            Conn::establish(&url)
        };
        let supervisor = Supervisor::<Conn>::connecting(connect);
        let handle = supervisor.processor(Deliver { delivered, _alive: alive }).start().expect("it starts");
        block_on(handle.send(Submit::<Order>::new(1))).expect("durable");
        block_on(handle.shutdown(SOON));
        block_on(handle.shutdown(SOON)); // as good as once
        handle.wake::<Order>();
        let refused = block_on(handle.send(Submit::<Order>::new(2)));
        assert!(matches!(refused, Err(RequestError::Stopped(_))), "{refused:?}");
        // Its threads end on their own time.
        let gone = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            while in_processors.strong_count() > 0 {
                ticks.tick().await;
            }
        };
        let gone = System::new().block_on(async { tokio::time::timeout(MINUTE, gone).await });
        assert_eq!(gone, Ok(()), "processors and connections are dropped within a minute");
        // A new one goes on where it ended.
        let (handle, mut deliveries) = start::<Conn>(db.url());
        block_on(handle.send(Submit::<Order>::new(2))).expect("durable");
        assert_eq!(deliveries.blocking_recv(), Some((2, "tea".to_owned())));
        block_on(handle.shutdown(SOON));
        assert_eq!(processed(&db), [1, 2]);
    }
}
