//! The pump: a processor's decisions, as a pure state machine.
//!
//! No clock, no mailbox, no SQL: inputs are told with their instant, and [`Pump::next`] answers what to
//! do. At most one turn is in flight; what arrives meanwhile joins the next.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use crate::{
    failure::{Failure, Kind},
    retry::RetryPolicy,
    store::{
        Moment,
        claim::{Claimed, Claims, Hold},
        settle::{Failed, Settle, Settled, Verdict, WhenDone},
        turn::{Answer, Request, Turn, Turned},
    },
};

/// What to do now.
pub(crate) enum Action<K, R> {
    Start(Hold<K>, R),
    Turn(Turn<K>),
    Answer(u64, Result<Answer, String>),
    /// The lease is lost: stop the attempt.
    Abort(K),
    /// Nothing is held and nothing is under way any more.
    Drained,
}

pub(crate) struct Pump<K, R> {
    policy: RetryPolicy,
    settles_within: Duration,
    at_once: usize,
    queue: VecDeque<(Hold<K>, R)>,
    running: HashMap<K, Hold<K>>,
    outcomes: Vec<Settle<K>>,
    locked: Vec<Settle<K>>,
    requests: Vec<(u64, Request<K>)>,
    in_flight: Option<InFlight<K>>,
    /// Outcomes whose turn failed, with the batches they end: sent again as they are.
    repeat: Option<Settling<K>>,
    /// Rows of each batch not yet answered for.
    held: BTreeMap<Moment, usize>,
    /// There may be something due.
    due: bool,
    retries_first: bool,
    pub(crate) paused: bool,
    draining: bool,
    ahead: usize,
    actions: Vec<Action<K, R>>,
}

type Settling<K> = (Arc<Vec<Settle<K>>>, Vec<Moment>);

struct InFlight<K> {
    settle: Arc<Vec<Settle<K>>>,
    ends: Vec<Moment>,
    tickets: Vec<u64>,
    claimed: bool,
}

impl<K: Clone + Eq + Hash + ToString, R> Pump<K, R> {
    pub(crate) fn new(policy: RetryPolicy, settles_within: Duration, at_once: usize) -> Self {
        Pump {
            policy,
            settles_within,
            at_once: at_once.max(1),
            queue: VecDeque::new(),
            running: HashMap::new(),
            outcomes: Vec::new(),
            locked: Vec::new(),
            requests: Vec::new(),
            in_flight: None,
            repeat: None,
            held: BTreeMap::new(),
            due: true,
            retries_first: false,
            paused: false,
            draining: false,
            ahead: 0,
            actions: Vec::new(),
        }
    }

    pub(crate) fn request(&mut self, ticket: u64, request: Request<K>) {
        self.requests.push((ticket, request));
        self.due = true;
    }

    /// There may be something due; rows that were only locked are tried again.
    pub(crate) fn wake(&mut self) {
        self.due = true;
        self.outcomes.append(&mut self.locked);
    }

    pub(crate) fn pause(&mut self, paused: bool) {
        self.paused = paused;
        self.due = true;
        if paused {
            self.release_queue();
        }
    }

    /// Claims no more, and gives back what has not begun.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        self.release_queue();
    }

    fn release_queue(&mut self) {
        for (hold, _) in self.queue.drain(..) {
            self.outcomes.push(Settle { hold, verdict: Verdict::Release });
        }
    }

    /// The grace is over: what still runs is stopped and given back, which costs no attempt.
    pub(crate) fn stop_running(&mut self) {
        for (id, hold) in self.running.drain() {
            self.actions.push(Action::Abort(id));
            self.outcomes.push(Settle { hold, verdict: Verdict::Release });
        }
    }

    pub(crate) fn claimed(&mut self, claims: Claims<K, R>, now: Moment) {
        for Claimed { hold, row } in claims.claimed {
            *self.held.entry(hold.token).or_default() += 1;
            match row {
                Ok(_) if self.draining || self.paused => {
                    self.outcomes.push(Settle { hold, verdict: Verdict::Release });
                }
                Ok(row) => self.queue.push_back((hold, row)),
                Err(why) => {
                    let failure = Failure::transient(why).with_code("row_unreadable");
                    let verdict = self.judge(&hold, &failure, now);
                    self.outcomes.push(Settle { hold, verdict });
                }
            }
        }
    }

    /// An attempt has ended; `ahead` is how many rows to claim ahead by what was measured.
    pub(crate) fn finished(
        &mut self,
        id: &K,
        token: Moment,
        outcome: Result<Vec<WhenDone>, Failure>,
        now: Moment,
        ahead: usize,
    ) {
        if self.running.get(id).is_none_or(|hold| hold.token != token) {
            return; // aborted meanwhile
        }
        let Some(hold) = self.running.remove(id) else { return };
        self.ahead = ahead.min(240);
        let verdict = match outcome {
            Ok(writes) => Verdict::Done(writes),
            Err(failure) => self.judge(&hold, &failure, now),
        };
        self.outcomes.push(Settle { hold, verdict });
    }

    /// What comes of a failure: when the row is due again, or that it is parked.
    fn judge(&self, hold: &Hold<K>, failure: &Failure, now: Moment) -> Verdict {
        let failures = hold.failures.saturating_add(1);
        let wait = self.policy.wait_after(failures, seed(&hold.id.to_string(), failures));
        let due_at = match failure.kind() {
            Kind::Permanent => None,
            Kind::RetryAfter(after) => Some(now.plus(after.max(Duration::from_secs(1)))),
            Kind::Unknown => Some(now.plus(wait.max(self.settles_within))),
            Kind::Transient | Kind::Unavailable(_) => Some(now.plus(wait)),
        };
        // Not later than the window's end: that is when the claim notes that the row has expired.
        let window_ends = hold.last_submitted_at.plus(self.policy.open_for());
        Verdict::Failed(Failed {
            due_at: due_at.map(|at| at.min(window_ends).max(now)),
            kind: failure.kind().stored(),
            code: failure.code().replace('\0', ""),
            place: failure.place(),
            error: failure.error_text(),
        })
    }

    pub(crate) fn turned(&mut self, turned: Result<Turned<K, R>, String>, now: Moment) {
        let Some(sent) = self.in_flight.take() else { return };
        let turned = match turned {
            Ok(turned) => turned,
            Err(error) => {
                // No outcome is lost: the same ones are sent again. Who asked for something is told.
                let tickets = sent.tickets.into_iter();
                self.actions
                    .extend(tickets.map(|ticket| Action::Answer(ticket, Err(error.clone()))));
                self.repeat = Some((sent.settle, sent.ends));
                self.due = true;
                return;
            }
        };
        for (ticket, answer) in turned.answers {
            self.actions.push(Action::Answer(ticket, Ok(answer)));
        }
        for (item, answer) in sent.settle.iter().zip(turned.settled) {
            match answer {
                Settled::Locked => {
                    let verdict = match &item.verdict {
                        Verdict::Failed(failed) => Verdict::Failed(failed.clone()),
                        Verdict::Release => Verdict::Release,
                        Verdict::Done(writes) => Verdict::Done(writes.iter().map(taken).collect()),
                    };
                    self.locked.push(Settle { hold: item.hold.clone(), verdict });
                    continue;
                }
                Settled::WriteFailed(why) => {
                    let failure = Failure::transient(why).with_code("when_done");
                    let verdict = self.judge(&item.hold, &failure, now);
                    self.outcomes.push(Settle { hold: item.hold.clone(), verdict });
                    continue;
                }
                Settled::Superseded => self.due = true,
                Settled::Kept | Settled::Lost | Settled::Refused(_) => {}
            }
            if let Some(count) = self.held.get_mut(&item.hold.token) {
                *count -= 1;
                if *count == 0 {
                    self.held.remove(&item.hold.token);
                }
            }
        }
        if sent.claimed && !turned.claims.drained() {
            self.due = true;
        }
        self.claimed(turned.claims, now);
    }

    /// Which attempt of its submission a running row is on.
    pub(crate) fn attempt(&self, id: &K) -> u32 {
        self.running.get(id).map_or(0, |hold| hold.failures.saturating_add(1))
    }

    /// Batches whose leases are to be renewed.
    pub(crate) fn held(&self) -> Vec<Moment> {
        self.held.keys().copied().collect()
    }

    pub(crate) fn lost(&mut self, tokens: &[Moment]) {
        self.queue.retain(|(hold, _)| !tokens.contains(&hold.token));
        self.outcomes.retain(|item| !tokens.contains(&item.hold.token));
        let lost: Vec<K> = self
            .running
            .iter()
            .filter(|(_, hold)| tokens.contains(&hold.token))
            .map(|(id, _)| id.clone())
            .collect();
        for id in lost {
            self.running.remove(&id);
            self.actions.push(Action::Abort(id));
        }
        self.held.retain(|token, _| !tokens.contains(token));
        self.due = true;
    }

    pub(crate) fn room(&self) -> usize {
        (self.at_once + self.ahead).saturating_sub(self.queue.len() + self.running.len())
    }

    /// What to do now.
    pub(crate) fn next(&mut self) -> Vec<Action<K, R>> {
        while self.running.len() < self.at_once {
            let Some((hold, row)) = self.queue.pop_front() else { break };
            self.running.insert(hold.id.clone(), hold.clone());
            self.actions.push(Action::Start(hold, row));
        }
        if self.in_flight.is_none() {
            self.turn();
        }
        if self.draining
            && self.in_flight.is_none()
            && self.held.is_empty()
            && self.repeat.is_none()
        {
            self.actions.push(Action::Drained);
        }
        std::mem::take(&mut self.actions)
    }

    fn turn(&mut self) {
        let room = self.room();
        let worth = room > 0 && self.queue.len() <= self.ahead / 2;
        let claims = self.due && worth && !self.paused && !self.draining;
        if !claims && self.outcomes.is_empty() && self.requests.is_empty() && self.repeat.is_none()
        {
            return;
        }
        let (settle, ends) = self.repeat.take().unwrap_or_else(|| {
            let settle = Arc::new(std::mem::take(&mut self.outcomes));
            let mut counts: HashMap<Moment, usize> = HashMap::new();
            for item in settle.iter() {
                *counts.entry(item.hold.token).or_default() += 1;
            }
            let ends =
                counts.into_iter().filter(|(token, count)| self.held.get(token) == Some(count));
            let ends = ends.map(|(token, _)| token).collect();
            (settle, ends)
        });
        let requests = std::mem::take(&mut self.requests);
        if claims {
            // Before the turn, not after it: a wake during the turn must not be lost.
            self.due = false;
            self.retries_first = !self.retries_first;
        }
        let tickets = requests.iter().map(|(ticket, _)| *ticket).collect();
        let claim = claims.then_some((room.min(256), self.retries_first));
        self.in_flight =
            Some(InFlight { settle: settle.clone(), ends: ends.clone(), tickets, claimed: claims });
        self.actions.push(Action::Turn(Turn { requests, settle, ends, claim }));
    }
}

/// The host's write, out of a turn that did not run it.
fn taken(write: &WhenDone) -> WhenDone {
    let mut write = write.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    std::sync::Mutex::new(std::mem::replace(&mut *write, Box::new(|_| Ok(()))))
}

/// FNV-1a: the same row and attempt always gets the same jitter.
fn seed(id: &str, failures: u32) -> u64 {
    let bytes = id.bytes().chain(failures.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{TimeZone, Utc};

    type TestPump = Pump<i64, &'static str>;

    fn at(seconds: u64) -> Moment {
        let began = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).single().expect("an instant");
        Moment::at(began).plus(Duration::from_secs(seconds))
    }

    fn pump(at_once: usize) -> TestPump {
        Pump::new(RetryPolicy::DEFAULT, Duration::from_secs(900), at_once)
    }

    fn rows(token: Moment, ids: &[i64]) -> Claims<i64, &'static str> {
        let claimed = ids.iter().map(|id| Claimed {
            hold: Hold {
                id: *id,
                token,
                seen: "seen".to_owned(),
                last_submitted_at: at(0),
                submitted_at: Some(at(0)),
                failures: 0,
            },
            row: Ok("row"),
        });
        Claims { claimed: claimed.collect(), put_aside: ids.len(), expired: Vec::new() }
    }

    fn turned(
        claims: Claims<i64, &'static str>,
        settled: Vec<Settled>,
    ) -> Turned<i64, &'static str> {
        Turned { answers: Vec::new(), settled, claims }
    }

    /// The actions as words.
    fn next(pump: &mut TestPump) -> Vec<String> {
        let word = |action| match action {
            Action::Start(hold, _) => format!("start {}", hold.id),
            Action::Turn(turn) => format!(
                "turn: {} settled, {} ended, claim {:?}",
                turn.settle.len(),
                turn.ends.len(),
                turn.claim.map(|(limit, _)| limit)
            ),
            Action::Answer(ticket, answer) => format!("answer {ticket}: {}", answer.is_ok()),
            Action::Abort(id) => format!("abort {id}"),
            Action::Drained => "drained".to_owned(),
        };
        pump.next().into_iter().map(word).collect()
    }

    #[test]
    fn a_row_is_claimed_started_settled_and_its_batch_ended() {
        let mut pump = pump(1);
        assert_eq!(next(&mut pump), ["turn: 0 settled, 0 ended, claim Some(1)"]);
        pump.turned(Ok(turned(rows(at(1), &[7]), vec![])), at(1));
        assert_eq!(next(&mut pump), ["start 7"]);
        pump.finished(&7, at(1), Ok(vec![]), at(2), 0);
        assert_eq!(next(&mut pump), ["turn: 1 settled, 1 ended, claim Some(1)"]);
        pump.turned(Ok(turned(Claims::none(), vec![Settled::Kept])), at(2));
        assert_eq!(next(&mut pump), [] as [&str; 0]);
        assert_eq!(pump.held(), []);
    }

    #[test]
    fn only_one_turn_is_in_flight_and_a_wake_meanwhile_is_not_lost() {
        let mut pump = pump(4);
        assert_eq!(next(&mut pump).len(), 1);
        pump.wake();
        assert_eq!(next(&mut pump), [] as [&str; 0]);
        pump.turned(Ok(turned(Claims::none(), vec![])), at(1));
        assert_eq!(next(&mut pump), ["turn: 0 settled, 0 ended, claim Some(4)"]);
    }

    #[test]
    fn a_failed_turn_is_sent_again_with_its_outcomes_and_its_askers_are_told() {
        let mut pump = pump(1);
        next(&mut pump);
        pump.turned(Ok(turned(rows(at(1), &[7]), vec![])), at(1));
        next(&mut pump);
        pump.finished(&7, at(1), Ok(vec![]), at(2), 0);
        pump.request(3, Request::Cancel { id: 9 });
        assert_eq!(next(&mut pump), ["turn: 1 settled, 1 ended, claim Some(1)"]);
        pump.turned(Err("away".to_owned()), at(3));
        assert_eq!(next(&mut pump), ["answer 3: false", "turn: 1 settled, 1 ended, claim Some(1)"]);
    }

    #[test]
    fn a_row_locked_by_somebody_is_settled_in_a_later_turn_and_keeps_its_lease() {
        let mut pump = pump(1);
        next(&mut pump);
        pump.turned(Ok(turned(rows(at(1), &[7]), vec![])), at(1));
        next(&mut pump);
        pump.finished(&7, at(1), Ok(vec![]), at(2), 0);
        next(&mut pump);
        pump.turned(Ok(turned(Claims::none(), vec![Settled::Locked])), at(2));
        assert_eq!(pump.held(), [at(1)]);
        pump.wake();
        assert_eq!(next(&mut pump), ["turn: 1 settled, 1 ended, claim Some(1)"]);
    }

    #[test]
    fn a_lost_lease_stops_its_attempts_and_drops_what_was_claimed_ahead() {
        let mut pump = pump(1);
        next(&mut pump);
        pump.turned(Ok(turned(rows(at(1), &[7, 8]), vec![])), at(1));
        next(&mut pump);
        pump.lost(&[at(1)]);
        assert_eq!(next(&mut pump)[0], "abort 7");
        assert_eq!(pump.held(), []);
        pump.finished(&7, at(1), Ok(vec![]), at(2), 0);
        assert!(pump.outcomes.is_empty(), "a stale outcome is not recorded");
    }

    #[test]
    fn a_stop_gives_back_what_has_not_begun_and_then_what_runs() {
        let mut pump = pump(1);
        next(&mut pump);
        pump.turned(Ok(turned(rows(at(1), &[7, 8]), vec![])), at(1));
        next(&mut pump);
        pump.drain();
        assert_eq!(next(&mut pump), ["turn: 1 settled, 0 ended, claim None"]);
        pump.turned(Ok(turned(Claims::none(), vec![Settled::Kept])), at(2));
        pump.stop_running();
        assert_eq!(next(&mut pump), ["abort 7", "turn: 1 settled, 1 ended, claim None"]);
        pump.turned(Ok(turned(Claims::none(), vec![Settled::Kept])), at(2));
        assert_eq!(next(&mut pump), ["drained"]);
    }

    #[test]
    fn a_paused_model_claims_nothing() {
        let mut pump = pump(1);
        pump.pause(true);
        assert_eq!(next(&mut pump), [] as [&str; 0]);
        pump.pause(false);
        assert_eq!(next(&mut pump), ["turn: 0 settled, 0 ended, claim Some(1)"]);
    }

    /// When a row submitted at 0 is due again after a failure at `now`; `None`: parked.
    fn due_after(failure: Failure, now: Moment) -> Option<Moment> {
        let claims = rows(at(0), &[7]);
        match pump(1).judge(&claims.claimed[0].hold, &failure, now) {
            Verdict::Failed(failed) => failed.due_at,
            _ => panic!("a failure is a failure"),
        }
    }

    #[test]
    fn each_kind_of_failure_says_when_the_row_is_due_again() {
        let after = |seconds| Failure::retry_after(Duration::from_secs(seconds), "busy");
        assert_eq!(due_after(Failure::transient("x"), at(10)), Some(at(10 + 3 * 3600)));
        assert_eq!(due_after(Failure::unknown("x"), at(10)), Some(at(10 + 3 * 3600)));
        assert_eq!(due_after(after(30), at(10)), Some(at(40)));
        assert_eq!(due_after(after(0), at(10)), Some(at(11)));
        assert_eq!(due_after(Failure::permanent("x"), at(10)), None);
    }

    #[test]
    fn no_wait_reaches_past_the_windows_end() {
        let four_days = 4 * 86_400;
        assert_eq!(due_after(Failure::transient("x"), at(four_days - 60)), Some(at(four_days)));
    }

    #[test]
    fn an_unknown_outcome_waits_until_the_service_has_settled() {
        const QUICK: RetryPolicy = RetryPolicy::DEFAULT.first(&[Duration::from_secs(60)]);
        let pump: TestPump = Pump::new(QUICK, Duration::from_secs(900), 1);
        let hold = &rows(at(0), &[7]).claimed[0].hold;
        let Verdict::Failed(failed) = pump.judge(hold, &Failure::unknown("x"), at(10)) else {
            panic!("a failure is a failure")
        };
        assert_eq!(failed.due_at, Some(at(910)));
    }
}
