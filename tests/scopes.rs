//! What each scope selects, and that scopes and `status()` go wherever Diesel takes them.
//!
//! The cases are one cast of rows, named by the state they are in. What the library's own tables say of
//! them is written by hand here, as a claim or a settle of another process would have left it.

mod support;

use asyncable::{Asyncable, Columns, RetryPolicy, Scope, Status, columns};
use chrono::{DateTime, NaiveDateTime, TimeDelta, TimeZone, Utc};
use diesel::{connection::SimpleConnection, dsl, prelude::*};
use schema::*;
use support::*;

mod schema {
    diesel::table! {
        reviews (id) {
            id -> BigInt,
            name -> Text,
            submitted_at -> Nullable<Timestamp>,
            last_submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            canceled_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
    diesel::table! {
        notes (id) {
            id -> BigInt,
            review_id -> BigInt,
        }
    }
    diesel::joinable!(notes -> reviews (review_id));
    diesel::allow_tables_to_appear_in_same_query!(reviews, notes);

    diesel::table! {
        /// A work on rows that another work is done on too.
        claims (id) {
            id -> Integer,
            establish_submitted_at -> Nullable<Timestamp>,
            establish_attempted_at -> Nullable<Timestamp>,
            establish_processed_at -> Nullable<Timestamp>,
            establish_error -> Nullable<Text>,
            sync_submitted_at -> Nullable<Timestamp>,
            sync_attempted_at -> Nullable<Timestamp>,
            sync_processed_at -> Nullable<Timestamp>,
            sync_error -> Nullable<Text>,
        }
    }
    diesel::table! {
        documents (id) {
            id -> Text,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }

    // The library's own.
    diesel::table! {
        asyncable_claims (model, claimed_at) {
            model -> Text,
            claimed_at -> Timestamp,
            host -> Text,
            expires_at -> Nullable<Timestamp>,
        }
    }
    diesel::table! {
        asyncable_retries (model, row_id) {
            model -> Text,
            row_id -> Text,
            attempted_at -> Timestamp,
            last_submitted_at -> Timestamp,
            due_at -> Nullable<Timestamp>,
            kind -> Text,
            failures -> Integer,
            code -> Text,
            first_failed_at -> Timestamp,
            last_failed_at -> Timestamp,
        }
    }
}

const DDL: &str = "
    CREATE TABLE reviews (id {key}, name TEXT NOT NULL, submitted_at TIMESTAMP,
      last_submitted_at TIMESTAMP, attempted_at TIMESTAMP, processed_at TIMESTAMP,
      canceled_at TIMESTAMP, error TEXT);
    CREATE TABLE notes (id {key}, review_id BIGINT NOT NULL);";

const MINUTE: i64 = 1;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 3, 13, 12, 0, 0).single().expect("an instant")
}

/// So many minutes before now.
fn ago(minutes: i64) -> NaiveDateTime {
    (now() - TimeDelta::minutes(minutes)).naive_utc()
}

#[derive(Queryable, Selectable, Identifiable)]
#[diesel(table_name = reviews)]
struct Review {
    id: i64,
}

impl Asyncable for Review {
    type Id = i64;
    const COLUMNS: Columns<reviews::table> = columns!(
        reviews,
        submitted_at,
        attempted_at,
        processed_at,
        error,
        last_submitted_at = last_submitted_at,
        canceled_at = canceled_at
    );
}

/// A row of the cast, and what the library's tables say of it.
#[derive(Clone, Default)]
struct Case {
    name: &'static str,
    submitted: Option<i64>,
    last_submitted: Option<i64>,
    attempted: Option<i64>,
    processed: Option<i64>,
    canceled: Option<i64>,
    /// The claims row of the attempt; inside it, when the lease ends, or that the batch has ended.
    claim: Option<Option<i64>>,
    entry: Option<Entry>,
}

/// A row of `asyncable_retries`.
#[derive(Clone, Copy)]
struct Entry {
    attempted: i64,
    last_submitted: i64,
    due: Option<i64>,
    kind: &'static str,
}

/// A row that was submitted so many minutes ago.
fn submitted(name: &'static str, minutes: i64) -> Case {
    Case { name, submitted: Some(minutes), last_submitted: Some(minutes), ..Case::default() }
}

impl Case {
    fn attempted(self, minutes: i64) -> Self {
        Case { attempted: Some(minutes), ..self }
    }

    /// The attempt's lease ends (negative: so many minutes from now).
    fn leased_until(self, minutes: i64) -> Self {
        Case { claim: Some(Some(minutes)), ..self }
    }

    fn batch_ended(self) -> Self {
        Case { claim: Some(None), ..self }
    }

    /// The attempt has failed: an entry that matches it.
    fn failed(self, kind: &'static str, due: Option<i64>) -> Self {
        let attempted = self.attempted.expect("a failed attempt is an attempt");
        let last_submitted = self.last_submitted.expect("a failed attempt was submitted");
        let entry = Entry { attempted, last_submitted, due, kind };
        Case { entry: Some(entry), ..self }
    }

    fn resubmitted(self, minutes: i64) -> Self {
        Case { submitted: Some(minutes), last_submitted: Some(minutes), ..self }
    }

    fn processed(self) -> Self {
        Case { processed: Some(MINUTE), ..self }
    }

    fn canceled(self) -> Self {
        Case { canceled: Some(MINUTE), ..self }
    }
}

fn cast() -> Vec<Case> {
    let wait = Some(-HOUR);
    let over = Some(0);
    vec![
        Case { name: "never submitted", ..Case::default() },
        submitted("waiting", 0),
        submitted("delayed", -HOUR),
        submitted("running", 10).attempted(5).leased_until(-1),
        submitted("running for long", 5 * HOUR).attempted(4 * HOUR).leased_until(-1),
        submitted("lost", 10).attempted(6).leased_until(0),
        submitted("lost long ago", 6 * HOUR).attempted(4 * HOUR + 1).leased_until(3 * HOUR),
        submitted("failed, waits", 10).attempted(7).batch_ended().failed("transient", wait),
        submitted("failed, beside a running one", 10)
            .attempted(8)
            .leased_until(-1)
            .failed("transient", wait),
        submitted("failed, wait over", 10).attempted(9).batch_ended().failed("transient", over),
        submitted("parked", 5 * HOUR).attempted(4 * HOUR + 2).failed("permanent", None),
        submitted("tried by a foreign worker", 5 * HOUR).attempted(3 * HOUR),
        submitted("orphaned", 5 * HOUR).attempted(3 * HOUR + 1),
        submitted("orphaned, its batch ended", 5 * HOUR).attempted(4 * HOUR + 3).batch_ended(),
        submitted("parked, then resubmitted by a foreign hand", 5 * HOUR)
            .attempted(4 * HOUR + 4)
            .failed("permanent", None)
            .resubmitted(MINUTE),
        submitted("expired, never tried", 4 * DAY),
        submitted("expired, failing", 4 * DAY).attempted(11).failed("transient", over),
        submitted("expired, parked", 4 * DAY).attempted(12).failed("permanent", None),
        submitted("processed", 10).attempted(13).batch_ended().processed(),
        submitted("canceled", 10).attempted(14).canceled(),
        submitted("processed and canceled", 10).attempted(15).processed().canceled(),
    ]
}

on_each_backend! {
    fn write_claim(conn: &mut Conn, model: &str, claimed: NaiveDateTime, expires: Option<NaiveDateTime>) {
        diesel::insert_into(asyncable_claims::table)
            .values((
                asyncable_claims::model.eq(model),
                asyncable_claims::claimed_at.eq(claimed),
                asyncable_claims::host.eq("another host"),
                asyncable_claims::expires_at.eq(expires),
            ))
            .execute(conn)
            .expect("a claim");
    }

    pub(super) fn write_entry(conn: &mut Conn, model: &str, row_id: &str, entry: Entry) {
        diesel::insert_into(asyncable_retries::table)
            .values((
                asyncable_retries::model.eq(model),
                asyncable_retries::row_id.eq(row_id),
                asyncable_retries::attempted_at.eq(ago(entry.attempted)),
                asyncable_retries::last_submitted_at.eq(ago(entry.last_submitted)),
                asyncable_retries::due_at.eq(entry.due.map(ago)),
                asyncable_retries::kind.eq(entry.kind),
                asyncable_retries::failures.eq(1),
                asyncable_retries::code.eq("io"),
                asyncable_retries::first_failed_at.eq(ago(entry.attempted)),
                asyncable_retries::last_failed_at.eq(ago(entry.attempted)),
            ))
            .execute(conn)
            .expect("an entry");
    }

    /// A database with the whole cast; ids count from 1 in its order.
    fn stage() -> (Db, Conn) {
        let db = Db::migrated(DDL);
        let mut conn = db.conn();
        conn.transaction(|conn| {
            for (case, id) in cast().into_iter().zip(1_i64..) {
                diesel::insert_into(reviews::table)
                    .values((
                        reviews::id.eq(id),
                        reviews::name.eq(case.name),
                        reviews::submitted_at.eq(case.submitted.map(ago)),
                        reviews::last_submitted_at.eq(case.last_submitted.map(ago)),
                        reviews::attempted_at.eq(case.attempted.map(ago)),
                        reviews::processed_at.eq(case.processed.map(ago)),
                        reviews::canceled_at.eq(case.canceled.map(ago)),
                    ))
                    .execute(conn)?;
                if let (Some(attempted), Some(expires)) = (case.attempted, case.claim) {
                    write_claim(conn, "reviews", ago(attempted), expires.map(ago));
                }
                if let Some(entry) = case.entry {
                    write_entry(conn, "reviews", &id.to_string(), entry);
                }
            }
            QueryResult::Ok(())
        })
        .expect("the cast");
        (db, conn)
    }

    fn names(conn: &mut Conn, scope: Scope<Review>) -> Vec<String> {
        let chosen = reviews::table.filter(scope.at(now())).order(reviews::id);
        chosen.select(reviews::name).load(conn).expect("names")
    }

    #[test]
    fn due_are_new_rows_retries_whose_wait_is_over_and_attempts_that_nobody_owns() {
        let (_db, mut conn) = stage();
        assert_eq!(
            names(&mut conn, Review::due()),
            [
                "waiting",
                "failed, wait over",
                "orphaned",
                "orphaned, its batch ended",
                "parked, then resubmitted by a foreign hand"
            ]
        );
    }

    #[test]
    fn in_flight_are_rows_under_a_lease_whose_attempt_has_not_failed() {
        let (_db, mut conn) = stage();
        assert_eq!(names(&mut conn, Review::in_flight()), ["running", "running for long"]);
    }

    #[test]
    fn failing_are_rows_that_are_tried_again_by_themselves() {
        let (_db, mut conn) = stage();
        assert_eq!(
            names(&mut conn, Review::failing()),
            ["failed, waits", "failed, beside a running one", "failed, wait over"]
        );
    }

    #[test]
    fn parked_are_rows_that_a_person_must_restart_until_a_newer_submission() {
        let (_db, mut conn) = stage();
        assert_eq!(names(&mut conn, Review::parked()), ["parked", "expired, parked"]);
    }

    #[test]
    fn expired_are_open_rows_whose_window_is_over() {
        let (_db, mut conn) = stage();
        assert_eq!(
            names(&mut conn, Review::expired()),
            ["expired, never tried", "expired, failing", "expired, parked"]
        );
    }

    #[test]
    fn parked_and_expired_rows_need_attention() {
        let (_db, mut conn) = stage();
        assert_eq!(
            names(&mut conn, Review::needs_attention()),
            ["parked", "expired, never tried", "expired, failing", "expired, parked"]
        );
    }

    #[test]
    fn processed_and_canceled_say_what_their_columns_say() {
        let (_db, mut conn) = stage();
        let named =
            (names(&mut conn, Review::processed()), names(&mut conn, Review::canceled()));
        let list = |names: [&str; 2]| names.map(str::to_owned).to_vec();
        assert_eq!(
            named,
            (
                list(["processed", "processed and canceled"]),
                list(["canceled", "processed and canceled"])
            )
        );
    }

    #[test]
    fn a_scope_asks_of_the_instant_and_the_policy_that_it_is_given() {
        let (_db, mut conn) = stage();
        let waits = RetryPolicy::DEFAULT.first_attempt_after(std::time::Duration::from_secs(60));
        let waiting = |conn: &mut Conn, scope: Scope<Review>| {
            let row = reviews::table.filter(reviews::name.eq("waiting")).filter(scope);
            row.count().get_result::<i64>(conn).expect("count")
        };

        let scopes = [
            Review::due().at(now()),
            Review::due().at(now()).with_policy(waits),
            Review::due().with_policy(waits).at(now() + TimeDelta::minutes(1)),
            Review::due().at(now() + TimeDelta::days(4)),
        ];

        assert_eq!(scopes.map(|scope| waiting(&mut conn, scope)), [1, 0, 1, 0]);
    }

    #[test]
    fn the_status_is_what_the_rows_own_columns_say() {
        let (_db, mut conn) = stage();
        let found: Vec<(String, Status)> = reviews::table
            .order(reviews::id)
            .select((reviews::name, Review::status().at(now())))
            .load(&mut conn)
            .expect("statuses");

        let expected = cast().into_iter().map(|case| {
            let status = match &case {
                case if case.processed.is_some() => Status::Processed,
                case if case.canceled.is_some() => Status::Canceled,
                case if case.last_submitted == Some(4 * DAY) => Status::Expired,
                case if case.attempted.is_some() => Status::Attempted,
                case if case.submitted.is_some() => Status::Submitted,
                _ => Status::NotSubmitted,
            };
            (case.name.to_owned(), status)
        });
        assert_eq!(found, expected.collect::<Vec<_>>());
    }

    #[test]
    fn the_status_in_sql_that_the_readme_prints_is_the_same() {
        let (_db, mut conn) = stage();
        // `now - interval '4 days'` in the README; here the instant of the test.
        let expires = ago(4 * DAY).format("'%Y-%m-%d %H:%M:%S'").to_string();
        let case = FIVE_BRANCHES.replace("{four days ago}", &expires);
        let both: Vec<(String, Status)> = reviews::table
            .select((dsl::sql::<diesel::sql_types::Text>(&case), Review::status().at(now())))
            .load(&mut conn)
            .expect("both statuses");
        assert_eq!(both.len(), cast().len());
        for (spelled, status) in both {
            assert_eq!(spelled, status.as_str());
        }
    }

    #[test]
    fn a_predicate_stands_in_and_or_and_not_without_changing_what_is_around_it() {
        let (_db, mut conn) = stage();
        let (parked, expired) = (Review::parked().at(now()), Review::expired().at(now()));

        let found: Vec<String> = reviews::table
            .filter(parked.or(expired).and(dsl::not(reviews::name.like("%never%"))))
            .filter(dsl::not(Review::processed()).and(reviews::id.gt(0)))
            .order(reviews::id)
            .select(reviews::name)
            .load(&mut conn)
            .expect("names");

        assert_eq!(found, ["parked", "expired, failing", "expired, parked"]);
    }

    #[test]
    fn a_predicate_stands_in_joins_from_either_side() {
        let (_db, mut conn) = stage();
        conn.batch_execute("INSERT INTO notes (review_id) SELECT id FROM reviews").expect("notes");
        let waiting = |name: &str| name.to_owned();

        let of_reviews: Vec<String> = reviews::table
            .inner_join(notes::table)
            .filter(Review::due().at(now()).and(notes::review_id.lt(5)))
            .select(reviews::name)
            .load(&mut conn)
            .expect("from the model's side");
        let of_notes: Vec<(i64, String, Status)> = notes::table
            .inner_join(reviews::table)
            .filter(Review::due().at(now()))
            .filter(notes::review_id.lt(5))
            .select((notes::review_id, reviews::name, Review::status().at(now())))
            .load(&mut conn)
            .expect("from the other side");
        let left: i64 = reviews::table
            .left_join(notes::table)
            .filter(Review::expired().at(now()).or(notes::id.is_null()))
            .count()
            .get_result(&mut conn)
            .expect("in a left join");

        assert_eq!(
            (of_reviews, of_notes, left),
            (vec![waiting("waiting")], vec![(2, waiting("waiting"), Status::Submitted)], 3)
        );
    }

    #[test]
    fn a_predicate_stands_in_sub_selects() {
        let (_db, mut conn) = stage();
        conn.batch_execute("INSERT INTO notes (review_id) SELECT id FROM reviews").expect("notes");
        let parked = reviews::table.filter(Review::parked().at(now()));

        let listed: Vec<i64> = notes::table
            .filter(notes::review_id.eq_any(parked.select(reviews::id)))
            .order(notes::review_id)
            .select(notes::review_id)
            .load(&mut conn)
            .expect("in a list");
        let correlated: i64 = notes::table
            .filter(dsl::exists(parked.filter(reviews::id.eq(notes::review_id))))
            .count()
            .get_result(&mut conn)
            .expect("in an exists");
        let any: bool = diesel::select(dsl::exists(parked)).get_result(&mut conn).expect("alone");

        assert_eq!((listed, correlated, any), (vec![11, 18], 2, true));
    }

    #[test]
    fn a_predicate_chooses_the_rows_of_an_update_and_of_a_delete() {
        let (_db, mut conn) = stage();

        let updated = diesel::update(reviews::table.filter(Review::expired().at(now())))
            .set(reviews::error.eq("too late"))
            .execute(&mut conn)
            .expect("update");
        let deleted = diesel::delete(reviews::table.filter(Review::parked().at(now())))
            .execute(&mut conn)
            .expect("delete");
        let left: Vec<String> = reviews::table
            .filter(reviews::error.eq("too late"))
            .order(reviews::id)
            .select(reviews::name)
            .load(&mut conn)
            .expect("names");

        let expected = ["expired, never tried", "expired, failing"].map(str::to_owned).to_vec();
        assert_eq!((updated, deleted, left), (3, 2, expected));
    }

    #[test]
    fn a_predicate_goes_into_boxed_queries_and_boxed_expressions() {
        let (_db, mut conn) = stage();
        type Boxed = Box<
            dyn BoxableExpression<
                    reviews::table,
                    <Conn as Connection>::Backend,
                    SqlType = diesel::sql_types::Nullable<diesel::sql_types::Bool>,
                >,
        >;
        let choose = |parked: bool| -> Boxed {
            match parked {
                true => Box::new(Review::parked().at(now())),
                false => Box::new(Review::in_flight().at(now())),
            }
        };

        let mut query = reviews::table.into_boxed();
        query = query.filter(Review::needs_attention().at(now()));
        query = query.or_filter(Review::canceled());
        let boxed: i64 = query.count().get_result(&mut conn).expect("a boxed query");
        let chosen = [true, false].map(|parked| {
            let count = reviews::table.filter(choose(parked)).count();
            count.get_result::<i64>(&mut conn).expect("a boxed expression")
        });

        assert_eq!((boxed, chosen), (6, [2, 2]));
    }

    #[test]
    fn predicates_and_the_status_are_selected_filtered_by_and_ordered_by() {
        let (_db, mut conn) = stage();
        let row = reviews::table.filter(reviews::name.eq_any(["running", "never submitted"]));

        let selected: Vec<(i64, Status, Option<bool>, Option<bool>)> = row
            .order(Review::oldest_first())
            .select((
                reviews::id,
                Review::status().at(now()),
                Review::in_flight().at(now()),
                Review::due().at(now()),
            ))
            .load(&mut conn)
            .expect("selected");
        let expired: i64 = reviews::table
            .filter(Review::status().at(now()).eq(Status::Expired))
            .count()
            .get_result(&mut conn)
            .expect("filtered by status");
        let ended = [Status::Processed, Status::Canceled];
        let ended: Vec<Status> = reviews::table
            .filter(Review::status().at(now()).eq_any(ended))
            .select(Review::status().at(now()))
            .load(&mut conn)
            .expect("filtered by several");
        assert!(!ended.is_empty());
        assert!(ended.iter().all(|status| matches!(status, Status::Processed | Status::Canceled)));

        let expected = vec![
            (4, Status::Attempted, Some(true), Some(false)),
            // Nothing can be said of a last submission that is NULL.
            (1, Status::NotSubmitted, Some(false), None),
        ];
        assert_eq!((selected, expired), (expected, 3));
    }

    #[test]
    fn a_model_is_selected_with_its_status() {
        let (_db, mut conn) = stage();
        let (review, status): (Review, Status) = reviews::table
            .find(19)
            .select((Review::as_select(), Review::status().at(now())))
            .first(&mut conn)
            .expect("a model");
        assert_eq!((review.id, status), (19, Status::Processed));
    }

    #[test]
    fn oldest_first_puts_rows_never_submitted_last_and_breaks_ties_by_id() {
        let (_db, mut conn) = stage();
        let ids: Vec<i64> = reviews::table
            .filter(reviews::id.eq_any([1, 2, 3, 4, 6, 8]))
            .order(Review::oldest_first())
            .select(reviews::id)
            .load(&mut conn)
            .expect("ids");
        assert_eq!(ids, [4, 6, 8, 2, 3, 1]);
    }

    mod zoned {
        use super::Zoned;
        diesel::table! {
            use diesel::sql_types::*;
            use super::Zoned;

            visits (id) {
                id -> BigInt,
                submitted_at -> Nullable<Zoned>,
                attempted_at -> Nullable<Zoned>,
                processed_at -> Nullable<Zoned>,
                error -> Nullable<Text>,
            }
        }
    }
    use zoned::visits;

    #[derive(Queryable, Selectable, Identifiable)]
    #[diesel(table_name = visits)]
    struct Visit {
        id: i64,
    }

    impl Asyncable for Visit {
        type Id = i64;
        const COLUMNS: Columns<visits::table> = columns!(visits);
    }

    #[test]
    fn instants_with_a_zone_mean_the_same_whatever_the_sessions_zone() {
        let db = Db::migrated(
            "CREATE TABLE visits (id {key}, submitted_at TIMESTAMPTZ, attempted_at TIMESTAMPTZ, \
             processed_at TIMESTAMPTZ, error TEXT)",
        );
        let mut conn = db.conn();
        if BACKEND == "PostgreSQL" {
            conn.batch_execute("SET TIME ZONE 'America/New_York'").expect("a zone");
        }
        let micro = TimeDelta::microseconds(120_345);
        let rows = [(1, None), (2, Some(5)), (3, Some(6)), (4, Some(7)), (5, Some(4 * HOUR))];
        for (id, attempted) in rows {
            diesel::insert_into(visits::table)
                .values((
                    visits::id.eq(id),
                    visits::submitted_at.eq(Some(now() - TimeDelta::hours(5))),
                    visits::attempted_at.eq(attempted.map(|at| ago(at).and_utc() + micro)),
                ))
                .execute(&mut conn)
                .expect("a visit");
        }
        write_claim(&mut conn, "visits", ago(5) + micro, Some(ago(-1)));
        let entry = |attempted, due, kind| Entry { attempted, last_submitted: 5 * HOUR, due, kind };
        write_entry(&mut conn, "visits", "3", entry(6, Some(1), "transient"));
        write_entry(&mut conn, "visits", "4", entry(7, None, "permanent"));
        diesel::update(asyncable_retries::table)
            .set(asyncable_retries::attempted_at.eq(ago(6) + micro))
            .filter(asyncable_retries::row_id.eq("3"))
            .execute(&mut conn)
            .expect("the microseconds");
        diesel::update(asyncable_retries::table)
            .set(asyncable_retries::attempted_at.eq(ago(7) + micro))
            .filter(asyncable_retries::row_id.eq("4"))
            .execute(&mut conn)
            .expect("the microseconds");

        let ids = [Visit::due(), Visit::in_flight(), Visit::parked(), Visit::expired()].map(|scope| {
            let chosen = visits::table.filter(scope.at(now())).order(visits::id);
            chosen.select(visits::id).load::<i64>(&mut conn).expect("ids")
        });

        assert_eq!(ids, [vec![1, 3, 5], vec![2], vec![4], vec![]]);
    }

    #[derive(Queryable, Selectable, Identifiable)]
    #[diesel(table_name = claims)]
    struct Establish {
        id: i32,
    }

    impl Asyncable for Establish {
        type Id = i32;
        const COLUMNS: Columns<claims::table> = columns!(
            claims, establish_submitted_at, establish_attempted_at, establish_processed_at,
            establish_error
        )
        .name("establish");
    }

    #[derive(Queryable, Selectable, Identifiable)]
    #[diesel(table_name = claims)]
    struct Sync {
        id: i32,
    }

    impl Asyncable for Sync {
        type Id = i32;
        const COLUMNS: Columns<claims::table> =
            columns!(claims, sync_submitted_at, sync_attempted_at, sync_processed_at, sync_error)
                .name("sync's");
        const POLICY: RetryPolicy =
            RetryPolicy::DEFAULT.window(std::time::Duration::from_secs(30 * 86_400));
    }

    #[test]
    fn two_works_on_one_table_are_told_apart_by_their_names() {
        let db = Db::migrated(
            "CREATE TABLE claims (id INTEGER PRIMARY KEY,
               establish_submitted_at TIMESTAMP, establish_attempted_at TIMESTAMP,
               establish_processed_at TIMESTAMP, establish_error TEXT,
               sync_submitted_at TIMESTAMP, sync_attempted_at TIMESTAMP,
               sync_processed_at TIMESTAMP, sync_error TEXT)",
        );
        let mut conn = db.conn();
        let (submitted, attempted) = (Some(ago(10)), Some(ago(5)));
        diesel::insert_into(claims::table)
            .values((
                claims::id.eq(7),
                claims::establish_submitted_at.eq(submitted),
                claims::establish_attempted_at.eq(attempted),
                claims::sync_submitted_at.eq(submitted),
                claims::sync_attempted_at.eq(attempted),
            ))
            .execute(&mut conn)
            .expect("a claim");
        let entry = Entry { attempted: 5, last_submitted: 10, due: None, kind: "permanent" };
        write_entry(&mut conn, "sync's", "7", entry);
        write_claim(&mut conn, "establish", ago(5), Some(ago(-1)));

        type Four = (Option<bool>, Option<bool>, Option<bool>, Option<bool>);
        let found: Four = claims::table
            .select((
                Establish::in_flight().at(now()),
                Establish::parked().at(now()),
                Sync::in_flight().at(now()),
                Sync::parked().at(now()),
            ))
            .first(&mut conn)
            .expect("both works");
        let month: (Status, Status) = claims::table
            .select((
                Establish::status().at(now() + TimeDelta::days(29)),
                Sync::status().at(now() + TimeDelta::days(29)),
            ))
            .first(&mut conn)
            .expect("both statuses");

        let (yes, no) = (Some(true), Some(false));
        assert_eq!(
            (found, month),
            ((yes, no, no, yes), (Status::Expired, Status::Attempted))
        );
    }

    #[derive(Queryable, Selectable, Identifiable)]
    #[diesel(table_name = documents)]
    struct Document {
        id: String,
    }

    impl Asyncable for Document {
        type Id = String;
        const COLUMNS: Columns<documents::table> = columns!(documents);
    }

    #[test]
    fn a_text_key_matches_its_entry_and_a_model_without_the_column_has_no_canceled_rows() {
        let db = Db::migrated(
            "CREATE TABLE documents (id TEXT PRIMARY KEY, submitted_at TIMESTAMP, \
             attempted_at TIMESTAMP, processed_at TIMESTAMP, error TEXT)",
        );
        let mut conn = db.conn();
        let odd = "a 'quoted' {id} $now";
        diesel::insert_into(documents::table)
            .values((
                documents::id.eq(odd),
                documents::submitted_at.eq(Some(ago(10))),
                documents::attempted_at.eq(Some(ago(5))),
            ))
            .execute(&mut conn)
            .expect("a document");
        let entry = Entry { attempted: 5, last_submitted: 10, due: None, kind: "permanent" };
        write_entry(&mut conn, "documents", odd, entry);

        let found: (Option<bool>, Option<bool>, Status) = documents::table
            .find(odd)
            .select((Document::parked(), Document::canceled(), Document::status().at(now())))
            .first(&mut conn)
            .expect("a document");

        assert_eq!(found, (Some(true), Some(false), Status::Attempted));
    }
}

/// What the README prints for hosts that read the status in SQL, but for the instant.
const FIVE_BRANCHES: &str = "CASE
  WHEN processed_at IS NOT NULL THEN 'processed'
  WHEN canceled_at IS NOT NULL THEN 'canceled'
  WHEN last_submitted_at <= {four days ago} THEN 'expired'
  WHEN attempted_at IS NOT NULL THEN 'attempted'
  WHEN submitted_at IS NOT NULL THEN 'submitted'
  ELSE 'not_submitted'
END";

#[cfg(all(feature = "postgres", feature = "uuid"))]
mod uuid_keys {
    use super::*;
    use diesel::PgConnection;
    use tables::uploads;
    use uuid::Uuid;

    mod tables {
        diesel::table! {
            uploads (id) {
                id -> Uuid,
                submitted_at -> Nullable<Timestamp>,
                attempted_at -> Nullable<Timestamp>,
                processed_at -> Nullable<Timestamp>,
                error -> Nullable<Text>,
            }
        }
    }

    #[derive(Queryable, Selectable, Identifiable)]
    #[diesel(table_name = uploads)]
    struct Upload {
        id: Uuid,
    }

    impl Asyncable for Upload {
        type Id = Uuid;
        const COLUMNS: Columns<uploads::table> = columns!(uploads);
    }

    #[test]
    fn a_uuid_key_is_submitted_and_found_parked() {
        let db = TestDb::<PgConnection>::migrated(
            "CREATE TABLE uploads (id UUID PRIMARY KEY, submitted_at TIMESTAMP, \
             attempted_at TIMESTAMP, processed_at TIMESTAMP, error TEXT)",
        );
        let mut conn = db.conn();
        let id = Uuid::from_u128(0xC0FF_EE00_0000_4000_8000_0000_0000_ABCD);
        diesel::insert_into(uploads::table)
            .values(uploads::id.eq(id))
            .execute(&mut conn)
            .expect("row");

        Upload::as_of(now()).submit(&mut conn, id).expect("submit");
        let due: Vec<Uuid> = uploads::table
            .filter(Upload::due().at(now()))
            .select(uploads::id)
            .load(&mut conn)
            .expect("due");
        diesel::update(uploads::table)
            .set(uploads::attempted_at.eq(Some(ago(-1))))
            .execute(&mut conn)
            .expect("an attempt");
        let entry = Entry { attempted: -1, last_submitted: 0, due: None, kind: "permanent" };
        postgres::write_entry(&mut conn, "uploads", &id.to_string(), entry);
        let parked: Vec<Upload> = uploads::table
            .filter(Upload::parked().at(now()))
            .select(Upload::as_select())
            .load(&mut conn)
            .expect("parked");

        assert_eq!((due, parked[0].id), (vec![id], id));
    }
}
