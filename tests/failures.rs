//! What a failure says, what comes of its row, and who gets to read it.

mod support;
#[path = "support/steps.rs"]
mod with_steps;

use std::{
    sync::{Arc, Mutex, Once},
    time::Duration,
};

use asyncable::{Attempt, Event, Failure, Submit, SubmitAll};
use chrono::TimeDelta;
use diesel::{connection::SimpleConnection, prelude::*};

use support::on_each_backend;
use with_steps::*;

/// Everything that the library logs in this process.
struct Everything;

static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Everything {
    fn keep() {
        static LOGGER: Once = Once::new();
        LOGGER.call_once(|| {
            log::set_logger(&Everything).expect("the process's logger");
            log::set_max_level(log::LevelFilter::Trace);
        });
    }
}

impl log::Log for Everything {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("asyncable")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = format!("{} {:?}", record.args(), Pairs(record.key_values()));
            LOGGED.lock().expect("a log").push(text);
        }
    }

    fn flush(&self) {}
}

/// A record's pairs, to be printed.
struct Pairs<'a>(&'a dyn log::kv::Source);

impl std::fmt::Debug for Pairs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        struct Print<'a, 'b>(&'a mut std::fmt::Formatter<'b>);
        impl<'kv> log::kv::VisitSource<'kv> for Print<'_, '_> {
            fn visit_pair(
                &mut self,
                key: log::kv::Key<'kv>,
                value: log::kv::Value<'kv>,
            ) -> Result<(), log::kv::Error> {
                Ok(write!(self.0, "{key}={value} ")?)
            }
        }
        self.0.visit(&mut Print(f)).map_err(|_| std::fmt::Error)
    }
}

/// A file number in a message.
const SECRET: &str = "796104437";

on_each_backend! {
    reads_of_the_librarys_tables!();

    #[actix_rt::test]
    async fn each_kind_says_when_its_row_is_due_again_and_a_permanent_one_parks_it() {
        let db = Db::migrated(DDL);
        let work = Work::by(async move |claim: &Claim, _: &Attempt| {
            Err(match claim.id {
                1 => Failure::transient("not yet"),
                2 => Failure::unavailable(BGS, "closed"),
                3 => Failure::retry_after(Duration::from_secs(7 * 3600), "busy"),
                4 => Failure::unknown("no answer"),
                _ => Failure::permanent("refused"),
            })
        });
        db.conn().batch_execute("INSERT INTO claims (error) VALUES (NULL)").expect("a fifth row");
        let handle = start::<Conn, _>(&db.url(), noon(), work);
        handle.send(SubmitAll::<Claim>::new(1..=5)).await.expect("durable");
        let minute = TimeDelta::minutes(1);
        for (id, kind, code, wait) in [
            // The policy's first wait is a minute.
            (1, "transient", "transient", Some(minute)),
            (2, "unavailable", "bgs_unavailable", Some(minute)),
            (3, "retry_after", "retry_after", Some(TimeDelta::hours(7))),
            // The service's `settles_within`.
            (4, "unknown", "unknown", Some(minute * 30)),
            (5, "permanent", "permanent", None),
        ] {
            let failed = entry_of(&db, "claims", id, kind).await;
            let due = wait.map(|wait| noon() + wait..noon() + wait + minute);
            let as_it_says = match &due {
                Some(due) => failed.due_at.is_some_and(|at| due.contains(&at.and_utc())),
                None => failed.due_at.is_none(),
            };
            assert!(as_it_says && failed.code == code, "{id}: {failed:?}");
        }
        handle.shutdown(SOON).await;
    }

    #[actix_rt::test]
    async fn its_code_and_place_are_logged_and_told_and_its_messages_are_not() {
        Everything::keep();
        let db = Db::migrated(DDL);
        let work = Work::by(async move |claim: &Claim, attempt: &Attempt| {
            let said = format!("{SECRET} is not known");
            match claim.id {
                1 => Err(Failure::transient(said).with_code("vbms.unknown")),
                2 => Err(Failure::permanent(said).with_code("vbms.refused")),
                3 => Err(std::io::Error::other(said))?,
                // What is stored does not fit, which the error quotes.
                _ if attempt.number() == 1 => {
                    attempt.step("establish").run(async |_| Ok(said)).await?;
                    Err(Failure::retry_after(Duration::from_secs(1), SECRET))
                }
                _ => attempt.step("establish").run(async |_| Ok(600)).await.map(drop),
            }
        });
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = events.clone();
        let listen = move |event: &Event| heard.lock().expect("events").push(event.clone());
        let supervisor = supervisor::<Conn>(&db.url(), noon()).on_event(listen).processor(work);
        let handle = supervisor.start().expect("it starts");
        for id in 1..=4 {
            handle.send(Submit::<Claim>::new(id)).await.expect("durable");
        }
        until("all is told", || (events.lock().expect("events").len() == 5).then_some(())).await;
        handle.shutdown(SOON).await;

        let events = events.lock().expect("events").clone();
        let logged = LOGGED.lock().expect("a log").clone();
        let told: Vec<String> = events.iter().map(|event| format!("{event:?}")).collect();
        for (code, texts) in [
            ("vbms.unknown", &logged),
            ("vbms.refused", &logged),
            ("std::io::Error", &logged),
            ("step_result", &logged),
            ("vbms.unknown", &told),
            ("vbms.refused", &told),
            ("std::io::Error", &told),
            ("step_result", &told),
        ] {
            let with_place = format!("{code} at {}:", file!());
            assert!(texts.iter().any(|text| text.contains(&with_place)), "{code} in {texts:?}");
        }
        for text in logged.iter().chain(&told) {
            assert!(!text.contains(SECRET), "{text}");
        }
        // Who asks for them by name gets them.
        let failures = events.iter().filter_map(|event| match event {
            Event::AttemptFailed { failure, .. } | Event::Parked { failure, .. } => Some(failure),
            _ => None,
        });
        assert!(failures.clone().count() == 5, "{told:?}");
        for failure in failures {
            assert!(failure.chain().iter().any(|text| text.contains(SECRET)), "{failure:?}");
        }
    }
}
