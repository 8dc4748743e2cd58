//! What a host may ask a running supervisor beside submitting: where rows stand, how many, what happens,
//! and, from within an attempt, the database.

mod support;

use std::{sync::Arc, time::Duration};

use actix::{Actor, Context, Handler};
use asyncable::{
    Asyncable, Attempt, Clock, Columns, Counts, Event, Failure, GetCounts, GetStatus, Handle,
    Outcome, Processor, RequestError, RetryPolicy, Shutdown, Status, StoreConnection, Submit,
    SubmitAll, Subscribe, Supervisor, Sweep, Wake, columns,
};
use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use diesel::{connection::SimpleConnection, prelude::*};
use tokio::sync::mpsc;

use support::on_each_backend;

mod schema {
    diesel::table! {
        orders (id) {
            id -> BigInt,
            customer -> Text,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            canceled_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
use schema::orders;

const DDL: &str = "CREATE TABLE orders (id {key}, customer TEXT NOT NULL DEFAULT 'ok', \
    submitted_at TIMESTAMP, attempted_at TIMESTAMP, processed_at TIMESTAMP, canceled_at TIMESTAMP, \
    error TEXT); \
    CREATE INDEX orders_work ON orders (attempted_at, submitted_at) \
    WHERE processed_at IS NULL AND canceled_at IS NULL; \
    INSERT INTO orders (customer) VALUES ('ok'), ('ok'), ('ok'), ('ok');";

#[derive(Queryable, Selectable, Identifiable)]
struct Order {
    id: i64,
}

impl Asyncable for Order {
    type Id = i64;
    const COLUMNS: Columns<orders::table> = columns!(orders, canceled_at = canceled_at);
    const POLICY: RetryPolicy = RetryPolicy::DEFAULT;
}

/// Reads the order's customer on a connection `C`, tells it, and does as it says.
struct Deliver<C> {
    told: mpsc::UnboundedSender<(i64, Result<String, Failure>)>,
    gate: Arc<tokio::sync::Semaphore>,
    connection: std::marker::PhantomData<fn() -> C>,
}

impl<C> Clone for Deliver<C> {
    fn clone(&self) -> Self {
        Deliver { told: self.told.clone(), gate: self.gate.clone(), connection: self.connection }
    }
}

impl<C: StoreConnection> Processor for Deliver<C>
where
    Order: asyncable::Stored<C::Backend>,
    C: ReadsOrders,
{
    type Model = Order;

    async fn process(&self, order: &Order, attempt: &Attempt) -> Outcome {
        let id = order.id;
        let customer = attempt.read(move |conn: &mut C| conn.customer(id)).await;
        let _ = self.told.send((id, customer.clone())); // the test may have ended
        match customer?.as_str() {
            "refuses" => Err(Failure::permanent("wants nothing").with_code("refused")),
            "away" => Err(Failure::transient("nobody there")),
            "waits" => Ok(self.gate.acquire().await.map(drop)?),
            "writes" => attempt.read(move |conn: &mut C| conn.rename(id)).await,
            "is not there" => attempt.read(move |conn: &mut C| conn.customer(99)).await.map(drop),
            _ => Ok(()),
        }
    }
}

trait ReadsOrders {
    fn customer(&mut self, id: i64) -> QueryResult<String>;
    fn rename(&mut self, id: i64) -> QueryResult<()>;
}

struct Host {
    handle: Handle,
    told: mpsc::UnboundedReceiver<(i64, Result<String, Failure>)>,
    gate: Arc<tokio::sync::Semaphore>,
}

fn start<C: StoreConnection + ReadsOrders>(url: String, clock: Clock) -> Host
where
    Order: asyncable::Stored<C::Backend>,
{
    let (teller, told) = mpsc::unbounded_channel();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let connection = std::marker::PhantomData;
    let handle = Supervisor::<C>::new(url)
        .clock(clock)
        .sweep_every(Duration::from_secs(3600))
        .processor(Deliver::<C> { told: teller, gate: gate.clone(), connection })
        .start()
        .expect("it starts");
    Host { handle, told, gate }
}

impl Host {
    async fn next(&mut self) -> (i64, Result<String, Failure>) {
        let next = tokio::time::timeout(Duration::from_secs(60), self.told.recv()).await;
        next.expect("an attempt within a minute").expect("a processor")
    }

    async fn status(&self, id: i64) -> Status {
        self.handle.send(GetStatus::<Order>::new(id)).await.expect("a status")
    }

    /// Asks until the answer is `wanted`.
    async fn until(&self, id: i64, wanted: Status) {
        let reached = async {
            while self.status(id).await != wanted {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(60), reached).await;
        reached.unwrap_or_else(|_| panic!("order {id} is not {wanted} within a minute"));
    }
}

/// An actor of the host's that hears of what happens.
struct Ears(mpsc::UnboundedSender<Event>);

impl Actor for Ears {
    type Context = Context<Self>;
}

impl Handler<Event> for Ears {
    type Result = ();

    fn handle(&mut self, event: Event, _: &mut Context<Self>) {
        let _ = self.0.send(event); // the test may have ended
    }
}

fn began() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 1, 1, 12, 0, 0).single().expect("an instant")
}

/// A clock that, for a test's length, stands still.
fn still() -> Clock {
    Clock::fast(1e-6, began())
}

on_each_backend! {
    impl ReadsOrders for Conn {
        fn customer(&mut self, id: i64) -> QueryResult<String> {
            orders::table.find(id).select(orders::customer).first(self)
        }

        fn rename(&mut self, id: i64) -> QueryResult<()> {
            diesel::update(orders::table.find(id)).set(orders::customer.eq("x")).execute(self).map(drop)
        }
    }

    fn set_customer(db: &Db, id: i64, customer: &str) {
        let set = diesel::update(orders::table.find(id)).set(orders::customer.eq(customer));
        set.execute(&mut db.conn()).expect("a customer");
    }

    fn error_of(db: &Db, id: i64) -> Option<String> {
        orders::table.find(id).select(orders::error).first(&mut db.conn()).expect("an order")
    }

    #[actix_rt::test]
    async fn an_attempt_reads_related_rows_and_the_answer_comes_back_to_it() {
        let db = Db::migrated(DDL);
        set_customer(&db, 2, "Ada");
        let mut host = start::<Conn>(db.url(), still());
        host.handle.send(Submit::<Order>::new(2)).await.expect("submitted");
        let (id, customer) = host.next().await;
        assert_eq!((id, customer.expect("a customer").as_str()), (2, "Ada"));
        host.until(2, Status::Processed).await;
        host.handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn what_reading_meets_is_a_transient_failure_with_the_place_of_the_call() {
        let db = Db::migrated(DDL);
        set_customer(&db, 1, "is not there");
        let mut host = start::<Conn>(db.url(), still());
        let (heard, mut events) = mpsc::unbounded_channel();
        host.handle.addr().send(Subscribe(Ears(heard).start().recipient())).await.expect("heard");
        host.handle.send(Submit::<Order>::new(1)).await.expect("submitted");
        host.next().await.1.expect("a customer");
        match events.recv().await {
            Some(Event::AttemptFailed { model: "orders", attempt: 1, failure, .. }) => {
                assert_eq!(failure.kind(), asyncable::Kind::Transient);
                assert_eq!(failure.code(), "diesel::result::Error");
                assert_eq!(failure.location().file(), file!());
            }
            other => panic!("expected a failed attempt, heard {other:?}"),
        }
        host.handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn reading_cannot_write() {
        let db = Db::migrated(DDL);
        set_customer(&db, 1, "writes");
        let mut host = start::<Conn>(db.url(), still());
        host.handle.send(Submit::<Order>::new(1)).await.expect("submitted");
        host.next().await.1.expect("a customer");
        host.until(1, Status::Attempted).await;
        host.handle.shutdown(Duration::from_secs(60)).await;
        let error = error_of(&db, 1).expect("an error");
        assert!(error.contains("read-only") || error.contains("readonly"), "{error}");
        let customer = db.conn().customer(1).expect("an order");
        assert_eq!(customer, "writes");
    }

    #[actix_rt::test]
    async fn a_delayed_submission_is_due_when_the_supervisors_clock_says_so() {
        let db = Db::migrated(DDL);
        let host = start::<Conn>(db.url(), still());
        let later = Duration::from_secs(600);
        host.handle.send(Submit::<Order>::new(1).after(later)).await.expect("submitted");
        host.handle.send(SubmitAll::<Order>::new([2, 3]).after(later)).await.expect("submitted");
        let at = began() + TimeDelta::hours(1);
        host.handle.send(Submit::<Order>::new(4).at(at)).await.expect("submitted");
        host.handle.shutdown(Duration::ZERO).await;
        let due = |seconds| {
            let at = began() + TimeDelta::seconds(seconds);
            let due = orders::table.filter(Order::due().at(at)).count();
            due.get_result::<i64>(&mut db.conn()).expect("a count")
        };
        assert_eq!((due(599), due(601), due(3599), due(3600)), (0, 3, 3, 4));
    }

    #[actix_rt::test]
    async fn a_wake_after_the_commit_starts_a_row_that_the_host_has_submitted_itself() {
        let db = Db::migrated(DDL);
        let mut host = start::<Conn>(db.url(), still());
        host.handle.addr().send(Sweep).await.expect("swept");
        Order::as_of(began()).submit(&mut db.conn(), 3).expect("submitted");
        host.handle.send(Wake::<Order>::new()).await.expect("woken");
        assert_eq!(host.next().await.0, 3);
        Order::as_of(began()).submit(&mut db.conn(), 4).expect("submitted");
        host.handle.wake::<Order>();
        assert_eq!(host.next().await.0, 4);
        host.handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn the_status_of_one_row_is_told_by_the_supervisors_clock() {
        let db = Db::migrated(DDL);
        set_customer(&db, 2, "waits");
        let mut host = start::<Conn>(db.url(), still());
        assert_eq!(host.status(1).await, Status::NotSubmitted);
        host.handle.send(Submit::<Order>::new(2)).await.expect("submitted");
        host.next().await.1.expect("a customer");
        assert_eq!(host.status(2).await, Status::Attempted);
        host.gate.add_permits(1);
        host.until(2, Status::Processed).await;
        Order::as_of(began() - TimeDelta::days(5)).submit(&mut db.conn(), 3).expect("submitted");
        assert_eq!(host.status(3).await, Status::Expired);
        let missing = host.handle.send(GetStatus::<Order>::new(99)).await.expect_err("no such row");
        assert!(matches!(missing, RequestError::NotFound { model: "orders", id } if id == "99"));
        host.handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn the_counts_say_how_many_rows_stand_where() {
        let db = Db::migrated(DDL);
        let more = "INSERT INTO orders (customer) VALUES ('refuses'), ('away'), ('waits'), ('ok')";
        db.conn().batch_execute(more).expect("orders");
        let mut host = start::<Conn>(db.url(), still());
        host.handle.send(SubmitAll::<Order>::new([5, 6, 7])).await.expect("submitted");
        for _ in 0..3 {
            host.next().await.1.expect("a customer");
        }
        host.handle.send(Submit::<Order>::new(8).after(Duration::from_secs(60))).await.expect("submitted");
        Order::as_of(began() - TimeDelta::days(5)).submit(&mut db.conn(), 1).expect("submitted");
        Order::as_of(began()).submit(&mut db.conn(), 2).expect("submitted");
        let counted = async {
            loop {
                let counts = host.handle.send(GetCounts::<Order>::new()).await.expect("counts");
                if counts.failing == 1 && counts.parked == 1 {
                    return counts;
                }
                tokio::task::yield_now().await;
            }
        };
        let counts = tokio::time::timeout(Duration::from_secs(60), counted).await.expect("settled");
        let Counts { scheduled, due, in_flight, failing, parked, expired, .. } = counts;
        // Order 2 was submitted behind the supervisor's back, and it has swept for the last time.
        assert_eq!((scheduled, due, in_flight, failing, parked, expired), (1, 1, 1, 1, 1, 1));
        host.gate.add_permits(1);
        host.handle.shutdown(Duration::from_secs(60)).await;
    }

    #[actix_rt::test]
    async fn a_shutdown_ends_the_supervisor_and_who_asks_later_is_told() {
        let db = Db::migrated(DDL);
        let host = start::<Conn>(db.url(), still());
        host.handle.addr().send(Shutdown { grace: Duration::ZERO }).await.expect("stopped");
        let late = host.handle.send(Submit::<Order>::new(1)).await.expect_err("stopped");
        assert!(matches!(late, RequestError::Stopped(_)), "{late}");
        host.handle.shutdown(Duration::ZERO).await; // again does no harm
        assert_eq!(error_of(&db, 1), None);
    }
}
