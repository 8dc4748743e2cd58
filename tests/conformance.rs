//! The original's recorded answers, and ours to the same questions.
//!
//! `tests/fixtures/conformance/README.md` says what the data is. `CONFORMANCE_DIR` names another folder
//! with data in the same format: the instant, the windows, the rows and the answers all come from there.
//!
//! Scopes, statuses and predicates agree exactly. The operations agree but for the differences that were
//! chosen, each of which [`chosen`] states; what the original's other operations do (attempted, processed,
//! and the error's two) is not a host's to call here, so those are counted and not compared.

mod support;

use std::{collections::HashMap, path::PathBuf, time::Duration};

use asyncable::{
    Asyncable, Columns, RetryPolicy, Scope, columns,
    original::{RowState, Scopes, Status},
};
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use diesel::prelude::*;
use schema::*;
use serde_json::Value;
use support::*;

mod schema {
    macro_rules! queue_table {
        ($t:ident, $s:ident, $l:ident, $a:ident, $p:ident, $x:ident, $e:ident) => {
            diesel::table! {
                $t (id) {
                    id -> BigInt,
                    $s -> Nullable<Timestamp>,
                    $l -> Nullable<Timestamp>,
                    $a -> Nullable<Timestamp>,
                    $p -> Nullable<Timestamp>,
                    $x -> Nullable<Timestamp>,
                    $e -> Nullable<Text>,
                }
            }
        };
    }
    queue_table!(
        rows_default,
        submitted_at,
        last_submitted_at,
        attempted_at,
        processed_at,
        canceled_at,
        error
    );
    queue_table!(
        rows_establishment,
        establishment_submitted_at,
        establishment_last_submitted_at,
        establishment_attempted_at,
        establishment_processed_at,
        establishment_canceled_at,
        establishment_error
    );
    queue_table!(
        rows_decision_sync,
        decision_sync_submitted_at,
        decision_sync_last_submitted_at,
        decision_sync_attempted_at,
        decision_sync_processed_at,
        decision_sync_canceled_at,
        decision_sync_error
    );
}

const ROLES: [&str; 6] =
    ["submitted", "last_submitted", "attempted", "processed", "canceled", "error"];

/// One table's part of the data: what `expected_<name>.json` says and the rows of its CSV file.
struct Recorded {
    expected: Value,
    now: DateTime<Utc>,
    policy: RetryPolicy,
    buffer: Duration,
    rows: Vec<(i64, RowState)>,
}

impl Recorded {
    fn read(name: &str) -> Self {
        let expected = json(&format!("expected_{name}.json"));
        let config = &expected["config"];
        let hours = |key: &str| Duration::from_secs_f64(3600.0 * number(&config[key]));
        let policy = RetryPolicy::DEFAULT
            .every(hours("retry_interval_hours"))
            .window(Duration::from_secs_f64(86_400.0 * number(&config["window_days"])));
        Recorded {
            now: instant(&expected["now"]).expect("now"),
            policy,
            buffer: hours("expiration_buffer_hours"),
            rows: read_rows(&bytes(text(&expected["file"])), &config["columns"]),
            expected,
        }
    }

    /// The columns' names by role, as the data gives them.
    fn columns(&self) -> [&str; 6] {
        ROLES.map(|role| text(&self.expected["config"]["columns"][role]))
    }

    fn at(&self, now: DateTime<Utc>) -> Asked {
        Asked { now, policy: self.policy, buffer: self.buffer }
    }
}

/// What a predicate is asked of, beside the row.
#[derive(Clone, Copy)]
struct Asked {
    now: DateTime<Utc>,
    policy: RetryPolicy,
    buffer: Duration,
}

impl Asked {
    /// Our answer, spelled as the data spells it.
    fn predicate(&self, name: &str, state: &RowState) -> Value {
        let answer = match name {
            "processed" => state.processed(),
            "attempted" => state.attempted(),
            "submitted" => state.submitted(),
            "canceled" => state.canceled(),
            "expired_without_processing" => {
                state.expired_without_processing(self.now, &self.policy, self.buffer)
            }
            "submitted_and_ready" => state.submitted_and_ready(self.now),
            "submitted_not_processed" => state.submitted_not_processed(),
            "previously_attempted" => state.previously_attempted(),
            "sanitized_error" => return state.sanitized_error().into(),
            "sort_by_last_submitted_at" => {
                return spelled(state.sort_by_last_submitted_at(self.now)).into();
            }
            _ => panic!("the data asks for a predicate that is not known: {name}"),
        };
        answer.into()
    }

    fn scopes<M: Asyncable>(&self) -> [(&'static str, Scope<M>); 13] {
        [
            ("unexpired", M::unexpired()),
            ("canceled", M::canceled()),
            ("processable", M::processable()),
            ("never_attempted", M::never_attempted()),
            ("previously_attempted_ready_for_retry", M::previously_attempted_ready_for_retry()),
            ("attemptable", M::attemptable()),
            ("requires_processing", M::requires_processing()),
            ("expired_without_processing", M::expired_without_processing()),
            ("attempted_without_being_submitted", M::attempted_without_being_submitted()),
            ("with_error", M::with_error()),
            ("potentially_stuck", M::potentially_stuck()),
            ("processed", M::processed()),
            ("processed_or_canceled", M::processed_or_canceled()),
        ]
        .map(|(name, scope)| (name, scope.at(self.now).with_policy(self.policy)))
    }
}

/// What the original answers where ours is a choice: it raises, we say no.
fn decided(answer: &Value) -> Value {
    if answer == "raises" { false.into() } else { answer.clone() }
}

/// An operation of the data.
enum Operation {
    /// Submits, to be due at this instant.
    Submit(Option<DateTime<Utc>>),
    Cancel,
    Restart,
    /// Not a host's to call here.
    Other,
}

impl Operation {
    fn of(key: &str, ops: &Value, now: DateTime<Utc>) -> Self {
        let ops = ops.as_array().expect("ops");
        let op = ops.iter().find(|op| op["key"] == key);
        let Some(op) = op else { return Operation::Other };
        match (text(&op["op"]), op["delay_kind"].as_str()) {
            ("submit_for_processing", Some("none")) => Operation::Submit(None),
            ("submit_for_processing", Some("seconds")) => {
                let microseconds = (number(&op["delay"]) * 1e6).round() as i64;
                Operation::Submit(Some(now + TimeDelta::microseconds(microseconds)))
            }
            ("submit_for_processing", Some("datetime")) => Operation::Submit(instant(&op["delay"])),
            ("canceled", _) => Operation::Cancel,
            ("restart", _) => Operation::Restart,
            ("attempted" | "processed" | "clear_error" | "update_error", _) => Operation::Other,
            other => panic!("the data has an operation that is not known: {other:?}"),
        }
    }
}

/// What we make of a row: the original's answer, but for the differences that were chosen.
fn chosen(
    operation: &Operation,
    before: &RowState,
    original: &RowState,
    now: DateTime<Utc>,
) -> RowState {
    let microsecond = TimeDelta::microseconds(1);
    // What an attempt has seen must differ from every later submission, or its outcome counts for that.
    let after_attempt = before.attempted_at.map_or(now, |at| at + microsecond);
    match operation {
        Operation::Submit(at) => RowState {
            // When it was asked for, and always above the last one: a generation never comes back. The
            // original takes a given date instead, and an earlier one where that is earlier.
            submitted_at: Some(before.submitted_at.map_or(now, |at| now.max(at + microsecond))),
            // Due exactly at the delay's instant, and never before now. The original puts it one retry
            // interval earlier, since a new row waits that long there.
            last_submitted_at: Some(at.unwrap_or(now).max(now).max(after_attempt)),
            // A new submission leaves nothing of the old one. The original keeps these three.
            attempted_at: None,
            canceled_at: None,
            error: None,
            ..original.clone()
        },
        // The first time stands. The original overwrites it.
        Operation::Cancel if before.canceled() => before.clone(),
        Operation::Cancel => original.clone(),
        // What is done is not undone, and what nobody asked for is not begun. The original does both.
        Operation::Restart if before.processed() || !before.submitted() => before.clone(),
        Operation::Restart => RowState {
            last_submitted_at: original.last_submitted_at.map(|at| at.max(after_attempt)),
            ..original.clone()
        },
        Operation::Other => original.clone(),
    }
}

fn status_of(state: &RowState) -> &'static str {
    match state {
        state if state.processed() => "processed",
        state if state.canceled() => "canceled",
        state if state.attempted() => "attempted",
        state if state.submitted() => "submitted",
        _ => "not_yet_submitted",
    }
}

/// How many answers were compared.
#[derive(Default)]
struct Count {
    compared: usize,
    /// Of these, operations whose outcome differs from the original's by choice.
    by_choice: usize,
    /// Operations that are not a host's to call here.
    skipped: usize,
}

#[expect(clippy::print_stdout, reason = "what was compared is the point of a conformance run")]
fn report(backend: &str, what: &str, count: &Count) {
    let Count { compared, by_choice, skipped } = count;
    println!(
        "{backend}: {what}: {compared} answers compared, {by_choice} of them another by choice; \
         {skipped} operations skipped (attempted, processed, clear_error, update_error are not public)"
    );
    assert!(*compared > 0, "the data holds nothing on {what}");
}

/// What the tests ask of a table, beside what `Asyncable` gives: in the backend's modules, since Diesel's
/// typed queries want the connection's type.
macro_rules! recorded_table {
    ($model:ident, $t:ident, $name:literal,
     $s:ident, $l:ident, $a:ident, $p:ident, $x:ident, $e:ident) => {
        #[derive(Queryable, Selectable, Identifiable)]
        #[diesel(table_name = $t)]
        struct $model {
            id: i64,
        }

        impl Asyncable for $model {
            type Id = i64;
            const COLUMNS: Columns<$t::table> =
                columns!($t, $s, $a, $p, $e, last_submitted_at = $l, canceled_at = $x);
        }

        impl RecordedTable for $model {
            const NAME: &'static str = $name;
            const COLUMN_NAMES: [&'static str; 6] = [
                stringify!($s),
                stringify!($l),
                stringify!($a),
                stringify!($p),
                stringify!($x),
                stringify!($e),
            ];

            fn create() -> &'static str {
                concat!(
                    "CREATE TABLE ",
                    stringify!($t),
                    " (id {key}, ",
                    stringify!($s),
                    " TIMESTAMP, ",
                    stringify!($l),
                    " TIMESTAMP, ",
                    stringify!($a),
                    " TIMESTAMP, ",
                    stringify!($p),
                    " TIMESTAMP, ",
                    stringify!($x),
                    " TIMESTAMP, ",
                    stringify!($e),
                    " TEXT)"
                )
            }

            fn insert(conn: &mut Conn, id: i64, state: &RowState) {
                let naive = |at: Option<DateTime<Utc>>| at.map(|at| at.naive_utc());
                let values = (
                    $t::id.eq(id),
                    $t::$s.eq(naive(state.submitted_at)),
                    $t::$l.eq(naive(state.last_submitted_at)),
                    $t::$a.eq(naive(state.attempted_at)),
                    $t::$p.eq(naive(state.processed_at)),
                    $t::$x.eq(naive(state.canceled_at)),
                    $t::$e.eq(state.error.as_deref()),
                );
                diesel::delete($t::table.find(id)).execute(conn).expect("delete");
                diesel::insert_into($t::table).values(values).execute(conn).expect("insert");
            }

            fn ids(conn: &mut Conn, scope: Scope<Self>, ordered: bool) -> Vec<i64> {
                let chosen = $t::table.filter(scope).select($t::id);
                if ordered {
                    chosen.order(Self::oldest_first()).load(conn).expect("ids in order")
                } else {
                    chosen.order($t::id).load(conn).expect("ids")
                }
            }

            fn all(conn: &mut Conn) -> Vec<(i64, RowState, Status)> {
                $t::table
                    .order($t::id)
                    .select(($t::id, Self::row_state(), Self::original_status()))
                    .load(conn)
                    .expect("every row")
            }

            fn one(conn: &mut Conn, id: i64) -> (RowState, Status) {
                $t::table
                    .find(id)
                    .select((Self::row_state(), Self::original_status()))
                    .first(conn)
                    .expect("the row")
            }

            fn among(conn: &mut Conn, id: i64, asked: &Asked) -> Vec<&'static str> {
                let scopes = asked.scopes::<Self>();
                let names = scopes.map(|(name, _)| name);
                let [a, b, c, d, e, f, g, h, i, j, k, l, m] = scopes.map(|(_, scope)| scope);
                type Answer = Option<bool>;
                type Half = (Answer, Answer, Answer, Answer, Answer, Answer, Answer);
                type Rest = (Answer, Answer, Answer, Answer, Answer, Answer);
                let (first, rest): (Half, Rest) = $t::table
                    .find(id)
                    .select(((a, b, c, d, e, f, g), (h, i, j, k, l, m)))
                    .first(conn)
                    .expect("which scopes hold the row");
                let answers = [
                    first.0, first.1, first.2, first.3, first.4, first.5, first.6, rest.0, rest.1,
                    rest.2, rest.3, rest.4, rest.5,
                ];
                let held = names.into_iter().zip(answers);
                held.filter(|(_, answer)| *answer == Some(true)).map(|(name, _)| name).collect()
            }
        }
    };
}

on_each_backend! {
    trait RecordedTable: Asyncable<Id = i64> + asyncable::Stored<<Conn as Connection>::Backend> {
        const NAME: &'static str;
        /// In the order of the roles.
        const COLUMN_NAMES: [&'static str; 6];

        fn create() -> &'static str;
        /// Puts the row there as it is given, in place of any other of this id.
        fn insert(conn: &mut Conn, id: i64, state: &RowState);
        fn ids(conn: &mut Conn, scope: Scope<Self>, ordered: bool) -> Vec<i64>;
        fn all(conn: &mut Conn) -> Vec<(i64, RowState, Status)>;
        fn one(conn: &mut Conn, id: i64) -> (RowState, Status);
        /// The scopes that hold the row.
        fn among(conn: &mut Conn, id: i64, asked: &Asked) -> Vec<&'static str>;
    }

    recorded_table!(Plain, rows_default, "default", submitted_at, last_submitted_at, attempted_at,
        processed_at, canceled_at, error);
    recorded_table!(Establishment, rows_establishment, "establishment",
        establishment_submitted_at, establishment_last_submitted_at, establishment_attempted_at,
        establishment_processed_at, establishment_canceled_at, establishment_error);
    recorded_table!(DecisionSync, rows_decision_sync, "decision_sync",
        decision_sync_submitted_at, decision_sync_last_submitted_at, decision_sync_attempted_at,
        decision_sync_processed_at, decision_sync_canceled_at, decision_sync_error);

    /// The table with every row of its CSV file.
    fn loaded<M: RecordedTable>(recorded: &Recorded) -> (Db, Conn) {
        assert_eq!(recorded.columns(), M::COLUMN_NAMES);
        let db = Db::migrated(M::create());
        let mut conn = db.conn();
        conn.transaction(|conn| {
            recorded.rows.iter().for_each(|(id, state)| M::insert(conn, *id, state));
            QueryResult::Ok(())
        })
        .expect("rows");
        (db, conn)
    }

    #[test]
    fn every_scope_selects_the_originals_rows_in_the_originals_order() {
        let mut count = Count::default();
        scopes::<Plain>(&mut count);
        scopes::<Establishment>(&mut count);
        scopes::<DecisionSync>(&mut count);
        report(BACKEND, "rows in or out of a scope", &count);
    }

    fn scopes<M: RecordedTable>(count: &mut Count) {
        let recorded = Recorded::read(M::NAME);
        let (_db, mut conn) = loaded::<M>(&recorded);
        let expected = recorded.expected["scopes"].as_object().expect("scopes");
        assert_eq!(expected.len(), 13);
        for (name, scope) in recorded.at(recorded.now).scopes::<M>() {
            let ordered = expected[name]["ordered"].as_bool().expect("ordered");
            let original: Vec<i64> = list(&expected[name]["ids"]).map(id).collect();
            let ours = M::ids(&mut conn, scope, ordered);
            assert_eq!(ours, original, "{} of {}", name, M::NAME);
            count.compared += recorded.rows.len();
        }
    }

    #[test]
    fn every_row_has_the_originals_status_and_predicates() {
        let mut count = Count::default();
        answers::<Plain>(&mut count);
        answers::<Establishment>(&mut count);
        answers::<DecisionSync>(&mut count);
        report(BACKEND, "statuses and predicates", &count);
    }

    fn answers<M: RecordedTable>(count: &mut Count) {
        let recorded = Recorded::read(M::NAME);
        let (_db, mut conn) = loaded::<M>(&recorded);
        let asked = recorded.at(recorded.now);
        let statuses = recorded.expected["statuses"].as_object().expect("statuses");
        let predicates = &recorded.expected["predicates"];
        let stored = M::all(&mut conn);
        let rows = stored.iter().map(|(id, state, _)| (*id, state.clone())).collect::<Vec<_>>();
        let mut in_the_file = recorded.rows.clone();
        in_the_file.sort_by_key(|(id, _)| *id);
        assert_eq!((rows, statuses.len()), (in_the_file, stored.len()));
        for (id, state, status) in stored {
            let id = id.to_string();
            assert_eq!(status.as_str(), statuses[&id], "status of {} {}", M::NAME, id);
            count.compared += 1;
            let columns = list(&predicates["columns"]);
            for (name, original) in columns.zip(list(&predicates["rows"][&id])) {
                let name = text(name);
                let ours = asked.predicate(name, &state);
                assert_eq!(ours, decided(original), "{} of {} {}", name, M::NAME, id);
                count.compared += 1;
                count.by_choice += usize::from(original == "raises");
            }
        }
    }

    /// Does the operation as of `now`; the row is there as it was before.
    fn perform<M: RecordedTable>(
        conn: &mut Conn,
        id: i64,
        operation: &Operation,
        now: DateTime<Utc>,
    ) {
        let then = M::as_of(now);
        match operation {
            Operation::Submit(None) => then.submit(conn, id).expect("submit"),
            Operation::Submit(Some(at)) => then.submit_at(conn, id, *at).expect("submit_at"),
            Operation::Cancel => drop(then.cancel(conn, id).expect("cancel")),
            Operation::Restart => drop(then.restart(conn, id).expect("restart")),
            Operation::Other => {}
        }
    }

    /// One operation on one row, against what the original made of it.
    fn transition<M: RecordedTable>(
        conn: &mut Conn,
        id: i64,
        operation: &Operation,
        before: &RowState,
        original: &RowState,
        now: DateTime<Utc>,
        count: &mut Count,
    ) {
        if let Operation::Other = operation {
            count.skipped += 1;
            return;
        }
        let expected = chosen(operation, before, original, now);
        M::insert(conn, id, before);
        perform::<M>(conn, id, operation, now);
        let (ours, status) = M::one(conn, id);
        assert_eq!((&ours, status.as_str()), (&expected, status_of(&expected)), "{before:?}");
        count.compared += 1;
        count.by_choice += usize::from(expected != *original);
    }

    #[test]
    fn each_operation_does_what_the_original_did_but_for_the_chosen_differences() {
        let mut count = Count::default();
        transitions::<Plain>(&mut count);
        transitions::<Establishment>(&mut count);
        transitions::<DecisionSync>(&mut count);
        report(BACKEND, "operations on one row", &count);
    }

    fn transitions<M: RecordedTable>(count: &mut Count) {
        let recorded = Recorded::read(M::NAME);
        let all = json("transitions.json");
        let now = instant(&all["now"]).expect("now");
        let (_db, mut conn) = loaded::<M>(&recorded);
        let rows: HashMap<i64, &RowState> =
            recorded.rows.iter().map(|(id, state)| (*id, state)).collect();
        for entry in list(&all[M::NAME]["entries"]) {
            let (id, before) = (id(&entry["id"]), rows[&id(&entry["id"])]);
            let changed = entry["changed"].as_object().expect("changed");
            let mut original = before.clone();
            for (column, from_to) in changed {
                let role = recorded.columns().iter().position(|name| name == column);
                set(&mut original, ROLES[role.expect("a known column")], &from_to[1]);
            }
            assert_eq!(entry["status"], status_of(&original), "the data's own status");
            let operation = Operation::of(text(&entry["op"]), &all[M::NAME]["ops"], now);
            transition::<M>(&mut conn, id, &operation, before, &original, now, count);
        }
    }

    #[test]
    fn rows_live_as_they_did_in_the_original_but_for_the_chosen_differences() {
        let mut count = Count::default();
        lifecycles::<Plain>(&mut count);
        lifecycles::<Establishment>(&mut count);
        lifecycles::<DecisionSync>(&mut count);
        report(BACKEND, "steps of lifecycles", &count);
    }

    fn lifecycles<M: RecordedTable>(count: &mut Count) {
        let recorded = Recorded::read(M::NAME);
        let all = json("lifecycles.json");
        let db = Db::migrated(M::create());
        let mut conn = db.conn();
        let table = &all[M::NAME];
        for walk in list(&table["walks"]) {
            let id = id(&walk["walk"]);
            let mut before = RowState::default();
            for step in list(&walk["steps"]) {
                let now = instant(&step["now"]).expect("now");
                let mut original = RowState::default();
                for (column, value) in list(&table["row_columns"]).zip(list(&step["row"])) {
                    let role = recorded.columns().iter().position(|name| *name == text(column));
                    set(&mut original, ROLES[role.expect("a known column")], value);
                }
                if step["op"] != "look" {
                    let operation = Operation::of(text(&step["op"]), &table["ops"], now);
                    transition::<M>(&mut conn, id, &operation, &before, &original, now, count);
                }
                // The original's row goes on, whatever we made of it: the steps build on one another.
                M::insert(&mut conn, id, &original);
                look::<M>(&mut conn, id, &recorded.at(now), step, count);
                before = original;
            }
        }
    }

    /// What the row answers at a step's instant.
    fn look<M: RecordedTable>(
        conn: &mut Conn,
        id: i64,
        asked: &Asked,
        step: &Value,
        count: &mut Count,
    ) {
        let (state, status) = M::one(conn, id);
        assert_eq!(status.as_str(), step["status"]);

        let mut scopes: Vec<&str> = list(&step["scopes"]).map(text).collect();
        let mut ours = M::among(conn, id, asked);
        scopes.sort_unstable();
        ours.sort_unstable();
        assert_eq!(ours, scopes, "scopes of {} {} at {}", M::NAME, id, asked.now);

        // A predicate that the original raises at is named so here; ours is then false, like all that
        // are not named.
        let original: Vec<&str> = list(&step["true_predicates"]).map(text).collect();
        let names = &asked_predicates();
        let ours: Vec<&str> =
            names.iter().copied().filter(|name| asked.predicate(name, &state) == true).collect();
        let known = |name: &&str| names.contains(name) || name.ends_with(":raises");
        assert!(original.iter().all(known), "{original:?}");
        let original: Vec<&str> =
            names.iter().copied().filter(|name| original.contains(name)).collect();
        assert_eq!(ours, original, "predicates of {} {} at {}", M::NAME, id, asked.now);
        count.compared += 1 + 13 + names.len();
    }
}

/// The predicates that answer true or false.
fn asked_predicates() -> [&'static str; 8] {
    [
        "processed",
        "attempted",
        "submitted",
        "canceled",
        "expired_without_processing",
        "submitted_and_ready",
        "submitted_not_processed",
        "previously_attempted",
    ]
}

fn bytes(file: &str) -> Vec<u8> {
    let folder = std::env::var_os("CONFORMANCE_DIR").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/conformance")
    });
    let path = folder.join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(file: &str) -> Value {
    serde_json::from_slice(&bytes(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("a list").iter()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn id(value: &Value) -> i64 {
    value.as_i64().expect("an id")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn instant(value: &Value) -> Option<DateTime<Utc>> {
    value.as_str().map(parse_instant)
}

const SPELLING: &str = "%Y-%m-%d %H:%M:%S%.6f";

fn parse_instant(text: &str) -> DateTime<Utc> {
    let naive = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f");
    naive.unwrap_or_else(|error| panic!("{text}: {error}")).and_utc()
}

fn spelled(at: DateTime<Utc>) -> String {
    at.format(SPELLING).to_string()
}

fn set(state: &mut RowState, role: &str, value: &Value) {
    match role {
        "submitted" => state.submitted_at = instant(value),
        "last_submitted" => state.last_submitted_at = instant(value),
        "attempted" => state.attempted_at = instant(value),
        "processed" => state.processed_at = instant(value),
        "canceled" => state.canceled_at = instant(value),
        _ => state.error = value.as_str().map(str::to_owned),
    }
}

/// The rows of a CSV file, by the roles that its columns have.
fn read_rows(file: &[u8], columns: &Value) -> Vec<(i64, RowState)> {
    let mut records = read_csv(std::str::from_utf8(file).expect("UTF-8")).into_iter();
    let header = records.next().expect("a header");
    let place = |name: &str| {
        header.iter().position(|column| column.as_deref() == Some(name)).expect("a column")
    };
    let id = place("id");
    let places = ROLES.map(|role| (role, place(text(&columns[role]))));
    let read = |record: Vec<Option<String>>| {
        let mut state = RowState::default();
        for (role, place) in places {
            set(&mut state, role, &record[place].clone().into());
        }
        (record[id].as_deref().expect("an id").parse().expect("a whole id"), state)
    };
    records.map(read).collect()
}

/// Cuts a CSV file into records. By hand, since NULL is `\N` without quotes, and with quotes a text.
fn read_csv(file: &str) -> Vec<Vec<Option<String>>> {
    let (mut records, mut record) = (Vec::new(), Vec::new());
    let mut rest = file;
    while !rest.is_empty() {
        let field = match rest.strip_prefix('"') {
            Some(quoted) => {
                let mut field = String::new();
                rest = quoted;
                loop {
                    let (piece, after) = rest.split_once('"').expect("a closing quote");
                    field.push_str(piece);
                    rest = after;
                    let Some(more) = rest.strip_prefix('"') else { break };
                    field.push('"');
                    rest = more;
                }
                Some(field)
            }
            None => {
                let end = rest.find([',', '\n']).unwrap_or(rest.len());
                let (field, after) = rest.split_at(end);
                rest = after;
                (field != "\\N").then(|| field.to_owned())
            }
        };
        record.push(field);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => {
                rest = rest.strip_prefix('\n').unwrap_or(rest);
                records.push(std::mem::take(&mut record));
            }
        }
    }
    records
}

#[test]
fn null_is_told_from_texts_that_look_like_it() {
    let file = "id,error\n1,\\N\n2,\"\"\n3,\"\\N\"\n4,\"say \"\"hi\"\",\nnow\"\n";

    let errors: Vec<Option<String>> =
        read_csv(file).into_iter().skip(1).map(|record| record[1].clone()).collect();

    let text = |text: &str| Some(text.to_owned());
    assert_eq!(errors, [None, text(""), text("\\N"), text("say \"hi\",\nnow")]);
}
