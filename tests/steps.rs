//! Durable steps: what is called, looked for, and called again, under which key; and which names and
//! results a step cannot have. See `docs/steps.md`.

mod support;
#[path = "support/steps.rs"]
mod with_steps;

use std::sync::{Arc, Mutex};

use asyncable::{
    Asyncable, Attempt, Failure, GetStatus, Handle, Outcome, Restart, Status, Stored, Submit,
    SubmitAll,
};
use diesel::prelude::*;
use tokio::sync::{Barrier, mpsc};

use support::on_each_backend;
use with_steps::*;

fn no_answer<T>() -> Outcome<T> {
    Err(Failure::unknown("no answer"))
}

/// The key that the first line of a log names.
fn key_in(log: &Log) -> String {
    let first = log.so_far().into_iter().next().expect("a call");
    first.split_once(' ').expect("a key").1.to_owned()
}

on_each_backend! {
    type Backend = <Conn as diesel::Connection>::Backend;

    reads_of_the_librarys_tables!();

    fn db() -> Db {
        Db::migrated(DDL)
    }

    /// One step, which can be looked for, of claim 1; then the attempt tells what it has.
    fn looking(service: &Scripted) -> impl asyncable::Processor<Model = Claim> + Clone + Send {
        let service = service.clone();
        Work::by(async move |_: &Claim, attempt: &Attempt| {
            let claim = attempt
                .step("establish")
                .find(async |key| service.find(&key).await)
                .run(async |key| service.call(&key).await)
                .await?;
            service.log.tell(format_args!("attempt {} has {claim}", attempt.number()));
            Ok(())
        })
    }

    #[actix_rt::test]
    async fn a_result_is_not_called_for_again_by_later_attempts() {
        let (db, service) = (db(), Scripted::new([Ok(600)], []));
        let log = service.log.clone();
        let work = Work::by(async move |_: &Claim, attempt: &Attempt| {
            let claim = attempt.step("establish").run(async |_| service.call("it").await).await?;
            service.log.tell(format_args!("attempt {} has {claim}", attempt.number()));
            match attempt.number() {
                1 | 2 => Err(Failure::retry_after(std::time::Duration::from_secs(1), "busy")),
                _ => Ok(()),
            }
        });
        let handle = start::<Conn, _>(&db.url(), noon(), work);
        handle.send(Submit::<Claim>::new(1)).await.expect("durable");
        processed(&db, 1).await;
        handle.shutdown(SOON).await;
        let expected = ["call it", "attempt 1 has 600", "attempt 2 has 600", "attempt 3 has 600"];
        assert_eq!(log.so_far(), expected);
    }

    #[actix_rt::test]
    async fn a_result_outlives_its_supervisor() {
        let (db, log) = (db(), Log::default());
        let told = log.clone();
        let work = Work::by(async move |_: &Claim, attempt: &Attempt| {
            let claim: (i64, String) = attempt
                .step("establish")
                .run(async |_| {
                    told.tell("call");
                    Ok((600, "é\0".to_owned()))
                })
                .await?;
            told.tell(format_args!("attempt {} has {claim:?}", attempt.number()));
            match attempt.number() {
                1 => Err(Failure::transient("not yet")),
                _ => Ok(()),
            }
        });
        let first = start::<Conn, _>(&db.url(), noon(), work.clone());
        first.send(Submit::<Claim>::new(1)).await.expect("durable");
        let due_at = entry_of(&db, "claims", 1, "transient").await.due();
        first.shutdown(SOON).await;
        let second = start::<Conn, _>(&db.url(), due_at, work);
        processed(&db, 1).await;
        second.shutdown(SOON).await;
        let has = r#"(600, "é\0")"#;
        assert_eq!(log.so_far(), ["call", &format!("attempt 1 has {has}"), &format!("attempt 2 has {has}")]);
    }

    async fn restarted_without_another_call<M: Stored<Backend> + Asyncable<Id = i64>>(model: &str) {
        let (db, log) = (db(), Log::default());
        let told = log.clone();
        let parks = Arc::new(Mutex::new(true));
        let work = Work::<M, _>::by(async move |_: &M, attempt: &Attempt| {
            let claim = attempt
                .step("establish")
                .run(async |_| {
                    told.tell("call");
                    Ok(600)
                })
                .await?;
            told.tell(format_args!("attempt {} has {claim}", attempt.number()));
            match std::mem::take(&mut *parks.lock().expect("a flag")) {
                true => Err(Failure::permanent("a person must act")),
                false => Ok(()),
            }
        });
        let handle = start::<Conn, _>(&db.url(), noon(), work);
        handle.send(Submit::<M>::new(1)).await.expect("durable");
        entry_of(&db, model, 1, "permanent").await;
        handle.send(Restart::<M>::new(1)).await.expect("restarted");
        is_processed::<M>(&handle, 1).await;
        handle.shutdown(SOON).await;
        assert_eq!(log.so_far(), ["call", "attempt 1 has 600", "attempt 1 has 600"]);
    }

    async fn is_processed<M: Asyncable<Id = i64>>(handle: &Handle, id: i64) {
        let mut ticks = actix_rt::time::interval(std::time::Duration::from_millis(20));
        let processed = async {
            while handle.send(GetStatus::<M>::new(id)).await.expect("answered") != Status::Processed {
                ticks.tick().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), processed).await.expect("within a minute");
    }

    #[actix_rt::test]
    async fn a_result_is_not_called_for_again_after_a_restart_of_its_row() {
        restarted_without_another_call::<Claim>("claims").await;
    }

    #[actix_rt::test]
    async fn nor_after_one_on_a_table_with_one_column_for_when_it_was_submitted() {
        restarted_without_another_call::<Fax>("faxes").await;
    }

    #[actix_rt::test]
    async fn a_call_without_a_known_result_is_looked_for_and_not_made_again_if_it_is_there() {
        let (db, service) = (db(), Scripted::new([no_answer()], [Ok(Some(600))]));
        let first = start::<Conn, _>(&db.url(), noon(), looking(&service));
        first.send(Submit::<Claim>::new(1)).await.expect("durable");
        let due_at = entry_of(&db, "claims", 1, "unknown").await.due();
        first.shutdown(SOON).await;
        let second = start::<Conn, _>(&db.url(), due_at, looking(&service));
        processed(&db, 1).await;
        second.shutdown(SOON).await;
        let key = key_in(&service.log);
        assert_eq!(service.log.so_far(), [format!("call {key}"), format!("find {key}"), "attempt 2 has 600".to_owned()]);
        // What was found is the step's result.
        assert_eq!(steps(&db, "claims", 1)[0].result.as_deref(), Some("600"));
    }

    #[actix_rt::test]
    async fn it_is_made_again_under_the_same_key_if_there_is_nothing() {
        let (db, service) = (db(), Scripted::new([no_answer(), Ok(600)], [Ok(None)]));
        let first = start::<Conn, _>(&db.url(), noon(), looking(&service));
        first.send(Submit::<Claim>::new(1)).await.expect("durable");
        let due_at = entry_of(&db, "claims", 1, "unknown").await.due();
        first.shutdown(SOON).await;
        let second = start::<Conn, _>(&db.url(), due_at, looking(&service));
        processed(&db, 1).await;
        second.shutdown(SOON).await;
        let key = key_in(&service.log);
        let (call, find) = (format!("call {key}"), format!("find {key}"));
        assert_eq!(service.log.so_far(), [call.clone(), find, call, "attempt 2 has 600".to_owned()]);
    }

    #[actix_rt::test]
    async fn where_the_service_cannot_be_asked_nothing_is_called_and_it_is_asked_again_later() {
        let finds = [Err(Failure::unavailable(BGS, "down")), Ok(Some(600))];
        let (db, service) = (db(), Scripted::new([no_answer()], finds));
        let mut from = noon();
        for kind in ["unknown", "unavailable"] {
            let handle = start::<Conn, _>(&db.url(), from, looking(&service));
            if kind == "unknown" {
                handle.send(Submit::<Claim>::new(1)).await.expect("durable");
            }
            from = entry_of(&db, "claims", 1, kind).await.due();
            handle.shutdown(SOON).await;
        }
        let last = start::<Conn, _>(&db.url(), from, looking(&service));
        processed(&db, 1).await;
        last.shutdown(SOON).await;
        let key = key_in(&service.log);
        let (call, find) = (format!("call {key}"), format!("find {key}"));
        assert_eq!(service.log.so_far(), [call, find.clone(), find, "attempt 3 has 600".to_owned()]);
    }

    #[actix_rt::test]
    async fn a_look_up_may_park_the_row_for_a_person_to_look() {
        let (db, service) = (db(), Scripted::new([no_answer()], [Err(Failure::permanent("look").with_code("look"))]));
        let first = start::<Conn, _>(&db.url(), noon(), looking(&service));
        first.send(Submit::<Claim>::new(1)).await.expect("durable");
        let due_at = entry_of(&db, "claims", 1, "unknown").await.due();
        first.shutdown(SOON).await;
        let second = start::<Conn, _>(&db.url(), due_at, looking(&service));
        let parked = entry_of(&db, "claims", 1, "permanent").await;
        second.shutdown(SOON).await;
        assert_eq!((parked.code.as_str(), service.log.so_far().len()), ("look", 2), "one call, one look");
    }

    #[actix_rt::test]
    async fn a_service_that_cannot_be_asked_gets_the_call_again_under_the_same_key() {
        let (db, service) = (db(), Scripted::new([no_answer(), Ok(600)], []));
        let log = service.log.clone();
        let work = Work::by(async move |_: &Claim, attempt: &Attempt| {
            attempt.step("establish").run(async |key| service.call(&key).await).await.map(drop)
        });
        let first = start::<Conn, _>(&db.url(), noon(), work.clone());
        first.send(Submit::<Claim>::new(1)).await.expect("durable");
        let due_at = entry_of(&db, "claims", 1, "unknown").await.due();
        first.shutdown(SOON).await;
        let second = start::<Conn, _>(&db.url(), due_at, work);
        processed(&db, 1).await;
        second.shutdown(SOON).await;
        let call = format!("call {}", key_in(&log));
        assert_eq!(log.so_far(), [call.clone(), call]);
    }

    /// The keys of two attempts, of two more after a restart, and of the next submission's two.
    async fn keys_of<M: Stored<Backend> + Asyncable<Id = i64>>(model: &str) -> Vec<String> {
        let db = db();
        let (told, mut keys) = mpsc::unbounded_channel();
        let work = Work::<M, _>::by(async move |_: &M, attempt: &Attempt| {
            let step = attempt.step("establish").run(async |key| {
                told.send(key.to_string())?;
                match attempt.number() {
                    1 => Err::<i64, _>(Failure::retry_after(std::time::Duration::from_secs(1), "busy")),
                    _ => Err(Failure::permanent("refused")),
                }
            });
            step.await.map(drop)
        });
        let handle = start::<Conn, _>(&db.url(), noon(), work);
        let mut seen = Vec::new();
        handle.send(Submit::<M>::new(1)).await.expect("durable");
        for then in ["restart", "submit", "nothing"] {
            seen.extend([next(&mut keys).await, next(&mut keys).await]);
            entry_of(&db, model, 1, "permanent").await;
            match then {
                "restart" => drop(handle.send(Restart::<M>::new(1)).await.expect("restarted")),
                "submit" => handle.send(Submit::<M>::new(1)).await.expect("durable"),
                _ => {}
            }
        }
        handle.shutdown(SOON).await;
        seen
    }

    fn assert_keys(model: &str, keys: &[String]) {
        let (once, again) = (keys[0].as_str(), keys[4].as_str());
        assert_eq!(keys, [once, once, once, once, again, again]);
        assert_ne!(once, again);
        for key in [once, again] {
            assert!(key.starts_with(&format!("{model}/1/")) && key.ends_with("/establish"), "{key}");
        }
    }

    #[actix_rt::test]
    async fn a_key_is_the_same_for_all_attempts_also_after_a_restart_and_new_for_a_new_submission() {
        assert_keys("claims", &keys_of::<Claim>("claims").await);
    }

    #[actix_rt::test]
    async fn keys_are_so_also_on_a_table_with_one_column_for_when_it_was_submitted() {
        assert_keys("faxes", &keys_of::<Fax>("faxes").await);
    }

    /// The key of an attempt, and of one after a restart.
    async fn attempts_own_keys<M: Stored<Backend> + Asyncable<Id = i64>>() -> [String; 2] {
        let db = db();
        let (told, mut keys) = mpsc::unbounded_channel();
        let work = Work::<M, _>::by(async move |_: &M, attempt: &Attempt| {
            told.send(attempt.idempotency_key().to_string())?;
            Err(Failure::permanent("refused"))
        });
        let handle = start::<Conn, _>(&db.url(), noon(), work);
        handle.send(Submit::<M>::new(1)).await.expect("durable");
        let before = next(&mut keys).await;
        handle.send(Restart::<M>::new(1)).await.expect("restarted");
        let after = next(&mut keys).await;
        handle.shutdown(SOON).await;
        [before, after]
    }

    #[actix_rt::test]
    async fn the_attempts_own_key_is_new_after_a_restart_where_one_column_is_both() {
        let [before, after] = attempts_own_keys::<Fax>().await;
        assert_ne!(before, after);
        let [before, after] = attempts_own_keys::<Claim>().await;
        assert_eq!(before, after);
    }

    #[actix_rt::test]
    async fn no_two_steps_of_the_rows_share_a_key() {
        let db = db();
        let (told, mut keys) = mpsc::unbounded_channel();
        let work = Work::by(async move |_: &Claim, attempt: &Attempt| {
            for name in ["establish", "notify"] {
                attempt.step(name).run(async |key| Ok(told.send(key.to_string())?)).await?;
            }
            Ok(())
        });
        let handle = start::<Conn, _>(&db.url(), noon(), work);
        handle.send(SubmitAll::<Claim>::new([1, 2])).await.expect("durable");
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..4 {
            seen.insert(next(&mut keys).await);
        }
        handle.shutdown(SOON).await;
        assert_eq!(seen.len(), 4, "{seen:?}");
    }

    #[actix_rt::test]
    async fn the_same_name_twice_in_one_attempt_is_the_hosts_mistake_and_parks_the_row() {
        let (db, log) = (db(), Log::default());
        let told = log.clone();
        let work = Work::by(async move |_: &Claim, attempt: &Attempt| {
            for page in 1..=2 {
                attempt
                    .step("upload")
                    .run(async |_| {
                        told.tell(format_args!("page {page}"));
                        Ok(())
                    })
                    .await?;
            }
            Ok(())
        });
        let handle = start::<Conn, _>(&db.url(), noon(), work);
        handle.send(Submit::<Claim>::new(1)).await.expect("durable");
        let parked = entry_of(&db, "claims", 1, "permanent").await;
        handle.shutdown(SOON).await;
        assert_eq!((parked.code.as_str(), parked.due_at), ("step_twice", None));
        assert_eq!(log.so_far(), ["page 1"]);
    }

    #[actix_rt::test]
    async fn like_steps_told_apart_by_their_items_each_have_a_result() {
        let (db, log) = (db(), Log::default());
        let told = log.clone();
        let work = Work::by(async move |_: &Claim, attempt: &Attempt| {
            for page in 1..=3 {
                let upload = attempt.step("upload").of(page).run(async |_| {
                    told.tell(format_args!("page {page}"));
                    if page == 3 && attempt.number() == 1 {
                        return Err(Failure::retry_after(std::time::Duration::from_secs(1), "busy"));
                    }
                    Ok(page * 100)
                });
                let uploaded = upload.await?;
                told.tell(format_args!("attempt {} has {uploaded}", attempt.number()));
            }
            Ok(())
        });
        let handle = start::<Conn, _>(&db.url(), noon(), work);
        handle.send(Submit::<Claim>::new(1)).await.expect("durable");
        processed(&db, 1).await;
        handle.shutdown(SOON).await;
        let first = ["page 1", "attempt 1 has 100", "page 2", "attempt 1 has 200", "page 3"];
        let second = ["attempt 2 has 100", "attempt 2 has 200", "page 3", "attempt 2 has 300"];
        assert_eq!(log.so_far(), [&first[..], &second].concat());
    }

    #[actix_rt::test]
    async fn steps_of_one_attempt_may_run_at_the_same_time() {
        let (db, log) = (db(), Log::default());
        let told = log.clone();
        // Neither ends before both have begun.
        let both = Arc::new(Barrier::new(2));
        let work = Work::by(async move |_: &Claim, attempt: &Attempt| {
            let upload = |page: i64| {
                let (both, told) = (both.clone(), told.clone());
                attempt.step("upload").of(page).run(async move |_| {
                    both.wait().await;
                    told.tell("call");
                    Ok(page)
                })
            };
            let (one, two) = tokio::join!(upload(1), upload(2));
            told.tell(format_args!("attempt {} has {} and {}", attempt.number(), one?, two?));
            match attempt.number() {
                1 => Err(Failure::retry_after(std::time::Duration::from_secs(1), "busy")),
                _ => Ok(()),
            }
        });
        let handle = start::<Conn, _>(&db.url(), noon(), work);
        handle.send(Submit::<Claim>::new(1)).await.expect("durable");
        processed(&db, 1).await;
        handle.shutdown(SOON).await;
        assert_eq!(log.so_far(), ["call", "call", "attempt 1 has 1 and 2", "attempt 2 has 1 and 2"]);
    }

    #[actix_rt::test]
    async fn a_result_that_no_longer_fits_parks_the_row_and_is_not_called_for_again() {
        let (db, log) = (db(), Log::default());
        let told = log.clone();
        let before = Work::by(async move |_: &Claim, attempt: &Attempt| {
            attempt.step("establish").run(async |_| Ok("six hundred".to_owned())).await?;
            Err(Failure::transient("not yet"))
        });
        let after = Work::by(async move |_: &Claim, attempt: &Attempt| {
            let claim = attempt.step("establish").run(async |_| {
                told.tell("call");
                Ok(600_i64)
            });
            claim.await.map(drop)
        });
        let old = start::<Conn, _>(&db.url(), noon(), before);
        old.send(Submit::<Claim>::new(1)).await.expect("durable");
        let due_at = entry_of(&db, "claims", 1, "transient").await.due();
        old.shutdown(SOON).await;
        let new = start::<Conn, _>(&db.url(), due_at, after);
        let parked = entry_of(&db, "claims", 1, "permanent").await;
        new.shutdown(SOON).await;
        assert_eq!(parked.code, "step_result");
        assert_eq!(log.so_far(), [] as [String; 0]);
        assert_eq!(steps(&db, "claims", 1)[0].result.as_deref(), Some(r#""six hundred""#));
    }

    #[actix_rt::test]
    async fn a_result_that_is_no_json_parks_the_row() {
        let db = db();
        let work = Work::by(async move |_: &Claim, attempt: &Attempt| {
            // A map's keys are texts there.
            let unfit = std::collections::BTreeMap::from([((1, 2), 3)]);
            attempt.step("establish").run(async |_| Ok(unfit)).await.map(drop)
        });
        let handle = start::<Conn, _>(&db.url(), noon(), work);
        handle.send(Submit::<Claim>::new(1)).await.expect("durable");
        let parked = entry_of(&db, "claims", 1, "permanent").await;
        handle.shutdown(SOON).await;
        assert_eq!(parked.code, "step_result");
    }
}

/// PostgreSQL's texts cannot hold NUL, and its indexes no long text that does not compress.
#[cfg(feature = "postgres")]
#[actix_rt::test]
async fn a_step_that_the_database_refuses_fails_alone_and_is_not_called() {
    let db = support::TestDb::<diesel::PgConnection>::migrated(DDL);
    let (told, mut calls) = mpsc::unbounded_channel();
    let work = Work::by(async move |claim: &Claim, attempt: &Attempt| {
        let item = match claim.id {
            1 => "a\0b".to_owned(),
            2 => {
                (0_u64..2000).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_string()).collect()
            }
            _ => "page".to_owned(),
        };
        attempt.step("upload").of(item).run(async |_| Ok(told.send(claim.id)?)).await
    });
    let handle = start::<diesel::PgConnection, _>(&db.url(), noon(), work);
    handle.send(SubmitAll::<Claim>::new([1, 2, 3])).await.expect("durable");
    let refused = until("the refusal is recorded", || {
        let code = asyncable_retries::table.select(asyncable_retries::code);
        code.first::<String>(&mut db.conn()).optional().expect("asked")
    });
    let refused = refused.await;
    let mut called = [next(&mut calls).await, next(&mut calls).await];
    called.sort_unstable();
    handle.shutdown(SOON).await;
    assert_eq!((called, refused.as_str()), ([1, 3], "step_refused"));
    assert!(calls.try_recv().is_err(), "no other call");
}
