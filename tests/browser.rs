//! The operator's page in a real browser: headless Chromium.
//!
//! `cargo test` ignores these tests, and says so; `./scripts/test` finds or installs a Chromium and runs
//! them. By hand: `./scripts/test cargo test --test browser -- --ignored`, with `ASYNCABLE_SCREENSHOTS=1` to
//! make the pictures in docs/screenshots anew.
#![cfg(all(feature = "dashboard", feature = "sqlite"))]

#[path = "support/browser.rs"]
mod chromium;
#[path = "support/office.rs"]
mod office;
mod support;

use std::{net::TcpListener, path::Path};

use actix_web::{App, HttpResponse, HttpServer, web};
use asyncable::{GetStatus, Restart, Status};
use serde_json::json;

use chromium::{Browser, ENTER, SPACE, Scheme, TAB, field, listed, named};
use office::{Office, Review};

/// An office on its bad day, and a browser in which somebody of this role has just logged in.
async fn at_work(role: &str) -> (Office, Browser) {
    let (office, browser) = (Office::open(), Browser::start().await);
    browser.goto(&office.login(role)).await;
    (office, browser)
}

/// Looks at the page of many rows again and again, as somebody without the script does.
async fn until_done(browser: &Browser, title: &str) {
    browser
        .until(title, async || {
            browser.reload().await;
            browser.text().await.contains(title)
        })
        .await;
}

async fn status(office: &Office, review: i64) -> Status {
    office.handle.send(GetStatus::<Review>::new(review)).await.expect("a status")
}

/// What a person did to a row of reviews.
fn done(
    who: &str,
    action: &str,
    id: Option<&str>,
    why: &str,
) -> (String, String, Option<String>, Option<String>) {
    let why = Some(why.to_owned()).filter(|why| !why.is_empty());
    (who.to_owned(), action.to_owned(), id.map(ToOwned::to_owned), why)
}

// --- what people come for ------------------------------------------------------------------------------

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn an_outage_is_seen_on_the_overview() {
    let (office, browser) = at_work("view").await;
    assert_eq!(browser.title().await, "(9 need you) Background work");
    let seen = browser.text().await;
    for words in [
        "bgs is down since Tue 24 Nov 09:12 (2 h 52 min).",
        "412 rows wait for it.",
        "Next try 12:05:10, with one row.",
        "9 rows need you.",
        "waiting for bgs",
        "vbms.refused_file_number",
        "2 hosts alive: app-1",
        "18 h 20 min", // the oldest of those that fail and are tried again
    ] {
        assert!(seen.contains(words), "{words}\n{seen}");
    }
    // All of that without scrolling, on a laptop.
    let needs = named("a", "6") + "[ancestor::table[contains(@class, 'needs')]]";
    assert!(browser.is_in_view(&needs).await);
    browser.follow("bgs").await;
    browser.sees("35 tries were not answered").await;
    assert_eq!(browser.complaints().await, [] as [String; 0]);
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn a_parked_row_is_opened_restarted_and_seen_to_be_processed_without_reloading() {
    let (office, browser) = at_work("operate").await;
    browser.follow("6").await;
    browser.follow("reviews 4711").await;
    browser.sees("parked: a person must act").await;
    browser.sees("Asked the regional office for the right number.").await;
    browser.fill("Why (kept in the history)", "the number is corrected").await;
    browser.press("Restart").await;
    browser.sees("Restarted.").await;
    browser.sees("running").await;
    browser.script("window.kept = true", json!([])).await;
    office.let_work();
    browser.until("processed", async || browser.title().await.contains("processed")).await;
    browser.sees("processed").await;
    assert_eq!(browser.script("return window.kept", json!([])).await, json!(true));
    assert_eq!(
        office.actions(),
        [done("Ann Lee", "restarted", Some("4711"), "the number is corrected")]
    );
    assert_eq!(browser.complaints().await, [] as [String; 0]);
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn ticked_rows_are_previewed_and_then_restarted_together() {
    let (office, browser) = at_work("operate").await;
    browser.follow("6").await;
    browser.tick("Tick reviews 4711").await;
    browser.tick("Tick reviews 4713").await;
    browser.press("Restart ticked").await;
    browser.sees("Restart 2 of reviews?").await;
    assert_eq!(office.actions(), []);
    assert_eq!(status(&office, 4711).await, Status::Attempted, "still parked");
    browser.fill("Why (kept in the history)", "both corrected").await;
    browser.press("Restart 2").await;
    browser.sees("Restarted 2 of 2 of reviews").await;
    office.let_work();
    browser.follow("Back to the rows").await;
    browser.sees("4 rows").await;
    browser
        .until("both processed", async || {
            status(&office, 4711).await == Status::Processed
                && status(&office, 4713).await == Status::Processed
        })
        .await;
    assert_eq!(status(&office, 4712).await, Status::Attempted, "not ticked");
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn all_rows_of_a_filter_are_previewed_restarted_and_counted_up_to_their_end() {
    let (office, browser) = at_work("operate").await;
    office.let_decisions_expire();
    browser.goto(&office.page("/rows?model=decisions&state=expired")).await;
    browser.sees("50 rows on this page").await;
    browser.tick("All of this list, not only this page").await;
    browser.press("Restart ticked").await;
    browser.sees("Restart 410 of decisions?").await;
    browser.sees("Rows that have changed since 12:04:31 are left alone").await;
    browser.fill("Why (kept in the history)", "bgs was down for days").await;
    browser.press("Restart 410").await;
    browser.sees("Restarted 410 of 410 of decisions").await;
    browser.goto(&office.page("/")).await;
    browser.sees("Ann Lee restarted 410 decisions: “bgs was down for days”").await;
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn a_paced_restart_shows_how_far_it_has_come_and_is_stopped() {
    let (office, browser) = at_work("operate").await;
    office.let_decisions_expire();
    browser.goto(&office.page("/rows?model=decisions&state=expired")).await;
    browser.tick("All of this list, not only this page").await;
    browser.press("Restart ticked").await;
    browser.fill("Why (kept in the history)", "a few at a time").await;
    browser.fill(PACE, "60").await;
    browser.press("Restart 410").await;
    browser
        .until("some are done, and it goes on", async || {
            browser.reload().await;
            let seen = browser.text().await;
            seen.contains(" of 410 are done.") && !seen.contains("\n0 of 410")
        })
        .await;
    browser.press("Stop").await;
    browser.sees("Ann Lee: “a few at a time”").await;
    browser.sees("stopped by").await;
    let left = office.expired().await;
    assert!((1..410).contains(&left), "{left}");
    browser.sees(&format!("Restarted {} of 410 of decisions", 410 - left)).await;
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn an_admin_types_the_number_before_rows_are_canceled_together() {
    let (office, browser) = at_work("admin").await;
    let refused = "The number that you typed is not the number of rows. Nothing was canceled.";
    for (typed, told) in [("3", refused), ("2", "Canceled 2 of 2 of reviews")] {
        assert_eq!(status(&office, 4698).await, Status::Attempted);
        browser.goto(&office.page("/rows?model=reviews&state=failing")).await;
        browser.tick("Tick reviews 4698").await;
        browser.tick("Tick reviews 4699").await;
        browser.press("Cancel ticked").await;
        browser.sees("Cancel 2 of reviews?").await;
        browser.fill("Why (kept in the history)", "filed elsewhere").await;
        browser.fill("Type 2 to confirm", typed).await;
        browser.press("Cancel 2").await;
        browser.sees(told).await;
    }
    assert_eq!(status(&office, 4698).await, Status::Canceled);
    assert_eq!(status(&office, 4700).await, Status::Attempted, "not ticked");
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn a_note_is_added_and_stays() {
    let (office, browser) = at_work("operate").await;
    browser.goto(&office.page("/rows/reviews/4712")).await;
    browser.fill("Note, not edited or deleted later", "They call back on Monday.").await;
    browser.press("Add note").await;
    browser.sees("Ann Lee: They call back on Monday.").await;
    browser.goto(&office.login("view")).await;
    browser.goto(&office.page("/rows/reviews/4712")).await;
    browser.sees("Ann Lee: They call back on Monday.").await;
    assert!(!browser.has(&named("button", "Add note")).await, "a viewer adds none");
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn somebody_sees_their_own_work_and_reads_what_was_sent_to_them() {
    let (office, browser) = at_work("operate").await;
    send_to_asmith(&office, &browser, "We have asked for the right number.").await;
    browser.goto(&office.login("own")).await;
    assert!(browser.address().await.ends_with("/ops/background/mine"));
    assert_eq!(browser.title().await, "(1 unread) Your work with outside services");
    browser.sees("Ann Lee about reviews 4711: “We have asked for the right number.”").await;
    let seen = browser.text().await;
    assert!(seen.contains("reviews 4716 (..633)"), "{seen}");
    for of_others in ["reviews 4712", "refused_file_number", "bgs", "796307038"] {
        assert!(!seen.contains(of_others), "{of_others}\n{seen}");
    }
    browser.press_first("Mark as read").await;
    browser
        .until("it is read", async || browser.title().await == "Your work with outside services")
        .await;
    assert!(!browser.has("//main//button").await, "nothing more to do");
    browser.goto(&office.page("/rows?model=reviews&state=parked")).await;
    browser.sees("This needs the role `view`.").await;
    office.close().await;
}

/// Notes something on a review of hers, and sends it along.
async fn send_to_asmith(office: &Office, browser: &Browser, note: &str) {
    browser.goto(&office.page("/rows/reviews/4711")).await;
    browser.fill("Note, not edited or deleted later", note).await;
    browser.tick("also send to asmith").await;
    browser.press("Add note").await;
    browser.sees(note).await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn rows_are_found_by_model_state_and_cause() {
    let (office, browser) = at_work("view").await;
    browser.follow("Rows").await;
    browser.choose("Model", "reviews").await;
    browser.choose("State", "failing").await;
    browser.press("Filter").await;
    browser.sees("4 rows").await;
    browser.sees("reviews 4698").await;
    browser.fill("Cause", "vbms.nothing_like_it").await;
    browser.press("Filter").await;
    browser.sees("No rows: reviews, failing, cause vbms.nothing_like_it.").await;
    browser.follow("Remove the cause.").await;
    browser.sees("4 rows").await;
    browser.choose("Model", "decisions").await;
    browser.choose("State", "due").await;
    browser.press("Filter").await;
    browser.sees("50 rows on this page").await;
    browser.follow("Next page").await;
    browser.sees("decisions 9056").await;
    office.close().await;
}

// --- however they come ---------------------------------------------------------------------------------

/// Presses Tab until this has the focus; at each stop the focus can be seen.
async fn tab_to(browser: &Browser, path: &str) {
    for _ in 0..80 {
        browser.type_keys(TAB).await;
        let stop = browser.focus().await;
        assert!(stop.is_seen, "the focus cannot be seen on {}", stop.element);
        if browser.has_focus(path).await {
            return;
        }
    }
    panic!("no way by the keyboard to {path}");
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn a_row_is_restarted_from_the_overview_by_keyboard_alone() {
    let (office, browser) = at_work("operate").await;
    browser.type_keys(TAB).await;
    let skip = named("a", "Skip to the content");
    assert!(browser.has_focus(&skip).await && browser.is_in_view(&skip).await);
    browser.type_keys(ENTER).await;
    browser.type_keys(TAB).await;
    assert!(browser.has_focus("//main//a").await, "the header's links are skipped");
    tab_to(&browser, &(named("a", "6") + "[ancestor::table[contains(@class, 'needs')]]")).await;
    browser.type_keys(ENTER).await;
    browser.sees("6 rows").await;
    tab_to(&browser, &field("Tick reviews 4711")).await;
    browser.type_keys(SPACE).await;
    assert!(browser.has(&format!("{}[@type='checkbox']", field("Tick reviews 4711"))).await);
    tab_to(&browser, &named("a", "reviews 4711")).await;
    browser.type_keys(ENTER).await;
    browser.sees("parked: a person must act").await;
    tab_to(&browser, &field("Why (kept in the history)")).await;
    browser.type_keys("corrected").await;
    tab_to(&browser, &named("button", "Restart")).await;
    browser.type_keys(ENTER).await;
    browser.sees("Restarted.").await;
    assert_eq!(office.actions(), [done("Ann Lee", "restarted", Some("4711"), "corrected")]);
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn everything_works_without_the_script() {
    let (office, browser) = (Office::open(), Browser::start().await);
    browser.without_scripts().await;
    browser.goto(&office.login("operate")).await;
    assert!(!browser.has(&named("button", "Pause")).await, "the script makes it, and does not run");
    browser.follow("6").await;
    browser.tick("Tick reviews 4712").await;
    browser.press("Restart ticked").await;
    browser.fill("Why (kept in the history)", "corrected").await;
    browser.press("Restart 1").await;
    until_done(&browser, "Restarted 1 of 1").await;
    browser.follow("Back to the rows").await;
    browser.follow("reviews 4711").await;
    browser.fill("Note, not edited or deleted later", "without a script").await;
    browser.press("Add note").await;
    browser.sees("Ann Lee: without a script").await;
    browser.fill("Why it is given up", "a duplicate").await;
    browser.press("Cancel").await;
    browser.sees("Canceled.").await;
    browser.follow("Rows").await;
    browser.choose("State", "failing").await;
    browser.choose("Model", "reviews").await;
    browser.press("Filter").await;
    browser.sees("4 rows").await;
    browser.goto(&office.page("/services/mail")).await;
    browser.fill("Because", "the printer is moved").await;
    browser.press("Hold down").await;
    browser.sees("held down").await;
    browser.press("Release").await;
    browser.sees("Released").await;
    let actions = office.actions().into_iter().map(|(_, action, ..)| action);
    let expected = ["restarted", "canceled", "service_held", "service_released"];
    assert_eq!(actions.collect::<Vec<_>>(), expected);
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn a_page_that_the_database_left_unanswered_tries_again_by_itself() {
    let (office, browser) = at_work("view").await;
    browser.without_scripts().await;
    office.handle.shutdown(std::time::Duration::ZERO).await;
    browser.goto(&office.page("/rows?model=reviews&state=parked")).await;
    browser.sees("The database does not answer").await;
    browser.script("window.old = true", json!([])).await;
    browser
        .until("it is loaded again", async || {
            browser.script("return window.old || null", json!([])).await == json!(null)
        })
        .await;
    browser.sees("The database does not answer").await;
    assert!(browser.address().await.ends_with("/rows?model=reviews&state=parked"));
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn what_is_opened_stays_open_as_the_page_brings_itself_up_to_date() {
    let (office, browser) = at_work("operate").await;
    browser.open("The same in numbers").await;
    browser.script("document.activeElement.blur()", json!([])).await;
    office.let_work();
    let restarted = office.handle.send(Restart::<Review>::new(4711)).await.expect("an answer");
    assert_eq!(restarted.restarted, 1);
    browser.sees("8 rows need you.").await;
    assert!(browser.has("//details[@open]").await);
    office.close().await;
}

/// Has the page bring itself up to date, and again, until it shows what is waited for.
async fn shows_in_time(browser: &Browser, what: &str) {
    browser
        .until(what, async || {
            browser.come_back().await;
            browser.text().await.contains(what)
        })
        .await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn what_is_typed_and_ticked_stays_and_no_line_moves_as_a_list_brings_itself_up_to_date() {
    let (office, browser) = at_work("operate").await;
    browser.goto(&office.page("/rows?model=reviews&state=parked")).await;
    browser.tick("Tick reviews 4711").await;
    browser.fill("Find by id or what it is about", "7963").await;
    office.make_odd(4001, "a new one");
    office.handle.send(Restart::<Review>::new(4712)).await.expect("an answer");
    shows_in_time(&browser, "not in this list any more").await;
    browser.sees("1 more row").await;
    assert!(!browser.text().await.contains("a new one"), "it comes when it is asked for");
    let find = field("Find by id or what it is about");
    assert!(browser.has_focus(&find).await);
    let typed = "return document.querySelector('#what').value";
    assert_eq!(browser.script(typed, json!([])).await, json!("7963"));
    let ticked =
        "return [...document.querySelectorAll('[name=row]:checked')].map((tick) => tick.value)";
    assert_eq!(browser.script(ticked, json!([])).await, json!(["4711"]));
    browser.press("Show").await;
    browser.sees("a new one").await;
    assert!(!browser.text().await.contains("not in this list any more"));
    assert_eq!(browser.script(ticked, json!([])).await, json!(["4711"]));
    assert_eq!(browser.complaints().await, [] as [String; 0]);
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn a_row_changes_around_what_somebody_is_typing() {
    let (office, browser) = at_work("operate").await;
    browser.goto(&office.page("/rows/reviews/4711")).await;
    let note = "Note, not edited or deleted later";
    browser.fill(note, "I have called them").await;
    let restarted = office.handle.send(Restart::<Review>::new(4711)).await.expect("an answer");
    assert_eq!(restarted.restarted, 1);
    office.let_work();
    shows_in_time(&browser, "It was processed").await;
    assert!(browser.has_focus(&field(note)).await);
    browser.type_keys(" twice").await;
    browser.press("Add note").await;
    browser.sees("I have called them twice").await;
    assert_eq!(browser.complaints().await, [] as [String; 0]);
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn a_page_that_is_paused_stays_as_it_is_until_it_goes_on() {
    let (office, browser) = at_work("operate").await;
    browser.press("Pause").await;
    office.handle.send(Restart::<Review>::new(4711)).await.expect("an answer");
    browser.come_back().await;
    browser.come_back().await;
    assert!(browser.text().await.contains("9 rows need you."));
    browser.goto(&office.page("/rows?model=reviews&state=parked")).await;
    assert!(browser.has(&named("button", "Go on")).await, "it is remembered");
    browser.goto(&office.page("/")).await;
    browser.sees("8 rows need you.").await;
    office.handle.send(Restart::<Review>::new(4712)).await.expect("an answer");
    browser.press("Go on").await;
    browser.sees("7 rows need you.").await;
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn when_the_database_is_silent_the_last_numbers_stay_and_the_buttons_go() {
    let (office, browser) = at_work("operate").await;
    browser.goto(&office.page("/rows/reviews/4711")).await;
    browser.fill("Why (kept in the history)", "corrected").await;
    office.handle.shutdown(std::time::Duration::ZERO).await;
    shows_in_time(&browser, "The database has not answered since").await;
    let seen = browser.text().await;
    assert!(
        seen.contains("What stands here is from then.")
            && seen.contains("It has been parked since"),
        "{seen}"
    );
    let pressable = "return [...document.querySelectorAll('main button')].filter((one) => one.checkVisibility()).length";
    assert_eq!(browser.script(pressable, json!([])).await, json!(0));
    let typed = "return document.querySelector('#restart-why').value";
    assert_eq!(browser.script(typed, json!([])).await, json!("corrected"));
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn whoever_is_logged_out_is_told_and_finds_what_they_have_typed_again() {
    let (office, browser) = at_work("operate").await;
    let note = "Note, not edited or deleted later";
    browser.goto(&office.page("/rows/reviews/4711")).await;
    browser.fill(note, "They call back on Monday").await;
    browser.log_out().await;
    shows_in_time(&browser, "You are signed out. Sign in").await;
    browser.goto(&office.login("operate")).await;
    browser.goto(&office.page("/rows/reviews/4711")).await;
    let typed = "return document.querySelector('#note').value";
    assert_eq!(browser.script(typed, json!([])).await, json!("They call back on Monday"));
    browser.press("Add note").await;
    browser.sees("Noted.").await;
    browser.goto(&office.page("/rows/reviews/4711")).await;
    assert_eq!(browser.script(typed, json!([])).await, json!(""), "it is sent");
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn times_are_told_as_the_readers_clock_has_them() {
    let (office, browser) = at_work("view").await;
    browser.sees("Times are UTC.").await;
    browser.move_to("America/New_York").await;
    browser.goto(&office.page("/")).await;
    for words in [
        "bgs is down since Tue 24 Nov 04:12 (2 h 52 min).",
        "Next try 07:05:10, with one row.",
        "Times are of America/New_York.",
    ] {
        browser.sees(words).await;
    }
    browser.goto(&office.page("/rows/reviews/4711")).await;
    browser.sees("It has been parked since Sat 21 Nov 09:05.").await;
    browser.without_scripts().await;
    browser.reload().await;
    browser.sees("It has been parked since Sat 21 Nov 14:05.").await;
    browser.sees("Times are UTC.").await;
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn an_hour_of_the_chart_is_looked_into_and_a_model_is_paused() {
    let (office, browser) = at_work("admin").await;
    browser.open("The same in numbers").await;
    browser.follow("Tue 24 Nov 09:10").await;
    browser.sees("bgs was down from Tue 24 Nov 09:12 on, and still is.").await;
    browser.follow("reviews").await;
    browser.sees("worked on").await;
    browser.fill("Because", "the form is wrong").await;
    browser.press("Pause reviews").await;
    browser.sees("claims nothing of it").await;
    browser.goto(&office.page("/")).await;
    browser.sees("reviews is paused by Bo Kim since").await;
    browser.press("Resume").await;
    browser.sees("Resumed").await;
    assert_eq!(browser.complaints().await, [] as [String; 0]);
    office.close().await;
}

const PACE: &str = "How many a minute (empty: as fast as the services allow)";

/// Every page, with what it is called and who looks at it.
const PAGES: [(&str, &str, &str); 19] = [
    ("overview", "operate", "/"),
    ("rows", "operate", "/rows?model=reviews&state=parked"),
    ("rows-due", "operate", "/rows?model=decisions&state=due"),
    ("rows-failing", "view", "/rows?model=reviews&state=failing"),
    ("rows-open", "admin", "/rows?model=reviews&state=not-done"),
    ("rows-needs-you", "operate", "/rows?model=decisions"),
    ("rows-none", "operate", "/rows?model=letters&state=parked&code=mail.lost"),
    ("row", "operate", "/rows/reviews/4711"),
    ("row-failing", "operate", "/rows/reviews/4698"),
    ("row-waiting", "operate", "/rows/decisions/9010"),
    ("row-processed", "operate", "/rows/reviews/4000"),
    ("row-viewed", "view", "/rows/reviews/4711"),
    ("model", "admin", "/models/reviews"),
    ("hour", "view", "/hours/2026-11-24T09%3A10%3A00Z"),
    ("service", "operate", "/services/bgs"),
    ("service-up", "view", "/services/vbms"),
    ("mine", "own", "/mine"),
    ("mine-not-allowed", "own", "/rows"),
    ("nothing", "operate", "/rows/reviews/99"),
];

/// The pictures in the docs.
const PICTURES: [&str; 7] =
    ["overview", "overview-dark", "overview-narrow", "rows", "row", "bulk-restart", "service"];

/// Makes a picture of the docs, if pictures are asked for.
async fn photograph(browser: &Browser, name: &str) {
    if std::env::var_os("ASYNCABLE_SCREENSHOTS").is_none() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = match PICTURES.contains(&name) {
        true => root.join("docs/screenshots"),
        // The others are for whoever works on the pages.
        false => root.join("target/screenshots"),
    };
    std::fs::create_dir_all(&folder).expect("a folder");
    let picture = browser.picture(if name.ends_with("-narrow") { 1800 } else { 1400 }).await;
    std::fs::write(folder.join(format!("{name}.png")), picture).expect("a picture");
}

/// Looks at a page: axe finds nothing, nothing has been refused by the policy, the body fits the window.
async fn looks_well(browser: &Browser, name: &str, faults: &mut Vec<String>) {
    photograph(browser, name).await;
    let complaints = browser.complaints().await.into_iter();
    // A page that says "nothing here" says so with its status, which the browser notes.
    let complaints =
        complaints.filter(|complaint| !complaint.contains("the server responded with"));
    faults.extend(complaints.map(|complaint| format!("{name}: {complaint}")));
    faults.extend(browser.too_wide().await.map(|wide| format!("{name} is too wide by {wide}")));
    let doubled = browser.doubled_ids().await.into_iter();
    faults.extend(doubled.map(|id| format!("{name}: two elements are {id}")));
    faults.extend(browser.faults().await.into_iter().map(|fault| format!("{name}: {fault}")));
}

/// Looks at every page in a window of this size.
async fn all_look_well(width: u32, height: u32, scheme: Scheme, suffix: &str) {
    let (office, browser) = at_work("operate").await;
    browser.look(width, height, scheme).await;
    let (mut faults, mut role) = (Vec::new(), "operate");
    send_to_asmith(&office, &browser, "We have asked for the right number.").await;
    for (name, whose, path) in PAGES {
        if whose != role {
            browser.goto(&office.login(whose)).await;
            role = whose;
        }
        browser.goto(&office.page(path)).await;
        looks_well(&browser, &format!("{name}{suffix}"), &mut faults).await;
    }

    // Those that a form leads to.
    browser.goto(&office.login("operate")).await;
    browser.goto(&office.page("/rows?model=reviews&state=parked")).await;
    browser.press("Restart ticked").await;
    browser.sees("No row is ticked.").await;
    looks_well(&browser, &format!("bulk-none{suffix}"), &mut faults).await;
    browser.goto(&office.page("/rows?model=reviews&state=parked")).await;
    for id in 4711..4717 {
        browser.tick(&format!("Tick reviews {id}")).await;
    }
    browser.press("Restart ticked").await;
    browser.sees("Restart 6 of reviews?").await;
    looks_well(&browser, &format!("bulk-restart{suffix}"), &mut faults).await;
    browser.fill("Why (kept in the history)", "the numbers are corrected").await;
    browser.press("Restart 6").await;
    until_done(&browser, "Restarted 6 of 6").await;
    looks_well(&browser, &format!("bulk-restarted{suffix}"), &mut faults).await;
    browser.goto(&office.page("/services/mail")).await;
    browser.fill("Because", "the printer is moved to the third floor, says Bo").await;
    browser.fill("For how many hours (empty: until released)", "3").await;
    browser.press("Hold down").await;
    browser.sees("Held down.").await;
    looks_well(&browser, &format!("service-held{suffix}"), &mut faults).await;
    browser.goto(&office.page("/")).await;
    browser.sees("mail is held down by Ann Lee").await;
    looks_well(&browser, &format!("overview-held{suffix}"), &mut faults).await;
    browser.open("The same in numbers").await;
    looks_well(&browser, &format!("overview-numbers{suffix}"), &mut faults).await;
    browser.goto(&office.login("admin")).await;
    browser.goto(&office.page("/models/letters")).await;
    browser.fill("Because", "the printer is moved to the third floor, says Bo").await;
    browser.press("Pause letters").await;
    browser.sees("Paused:").await;
    looks_well(&browser, &format!("model-paused{suffix}"), &mut faults).await;
    browser.goto(&office.page("/")).await;
    browser.sees("letters is paused by Bo Kim").await;
    looks_well(&browser, &format!("overview-paused{suffix}"), &mut faults).await;
    browser.goto(&office.login("operate")).await;

    office.let_decisions_expire();
    browser.goto(&office.page("/rows?model=decisions&state=expired")).await;
    browser.tick("All of this list, not only this page").await;
    browser.press("Restart ticked").await;
    browser.fill("Why (kept in the history)", "bgs was down for days").await;
    browser.fill(PACE, "60").await;
    looks_well(&browser, &format!("bulk-all{suffix}"), &mut faults).await;
    browser.press("Restart 410").await;
    browser.sees(" of 410 are done.").await;
    looks_well(&browser, &format!("bulk-paced{suffix}"), &mut faults).await;
    browser.press("Stop").await;
    browser.sees("stopped by").await;
    looks_well(&browser, &format!("bulk-stopped{suffix}"), &mut faults).await;

    // A day on which nothing has happened, and one on which the database has gone.
    office.close().await;
    let office = Office::calm();
    browser.goto(&office.login("operate")).await;
    browser
        .until("somebody is alive", async || {
            browser.goto(&office.page("/")).await;
            browser.text().await.contains("Nothing needs you. 1 host is alive.")
        })
        .await;
    looks_well(&browser, &format!("overview-calm{suffix}"), &mut faults).await;
    office.handle.shutdown(std::time::Duration::ZERO).await;
    browser.goto(&office.page("/")).await;
    browser.sees("The database does not answer").await;
    looks_well(&browser, &format!("silent{suffix}"), &mut faults).await;
    office.close().await;
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), listed(&faults));
}

/// What the next three tests look with does see.
#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn a_page_that_is_at_fault_is_found_out() {
    let browser = Browser::start().await;
    browser.look(320, 640, Scheme::Dark).await;
    let page = "data:text/html,<html lang=en><title>Bad</title><meta http-equiv=Content-Security-Policy \
                content=\"script-src 'none'\"><main><h1>Bad</h1><script>alert(1)</script><img src='data:,'>\
                <p style='background:white;color:lightgray;width:400px'>Faint</p></main>";
    browser.goto(page).await;
    let faults = browser.faults().await.join("\n");
    assert!(faults.contains("image-alt") && faults.contains("color-contrast"), "{faults}");
    assert!(browser.too_wide().await.is_some_and(|wide| wide.contains("Faint")));
    assert!(listed(&browser.complaints().await).contains("Content Security Policy"));
    let dark = "return matchMedia('(prefers-color-scheme: dark)').matches";
    assert_eq!(browser.script(dark, json!([])).await, json!(true));
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn axe_finds_nothing_on_any_page_in_light() {
    all_look_well(1280, 800, Scheme::Light, "").await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn axe_finds_nothing_on_any_page_in_the_dark() {
    all_look_well(1280, 800, Scheme::Dark, "-dark").await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn every_page_fits_320_pixels_and_axe_finds_nothing() {
    all_look_well(320, 640, Scheme::Light, "-narrow").await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn every_page_fits_windows_between_a_phone_and_a_desk() {
    let (office, browser) = at_work("operate").await;
    let mut faults = Vec::new();
    for width in [600, 871, 1131] {
        browser.look(width, 800, Scheme::Light).await;
        for (name, _, path) in PAGES {
            browser.goto(&office.page(path)).await;
            photograph(&browser, &format!("{name}-{width}")).await;
            let wide = browser.too_wide().await;
            faults.extend(wide.map(|wide| format!("{name} at {width} is too wide by {wide}")));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), listed(&faults));
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn no_text_however_long_makes_a_page_wider_than_its_window() {
    let (office, browser) = at_work("operate").await;
    let long = "unbroken_".repeat(40);
    office.make_odd(4711, &long);
    browser.goto(&office.page("/services/mail")).await;
    browser.fill("Because", &long).await;
    browser.press("Hold down").await;
    browser.goto(&office.page("/rows/reviews/4711")).await;
    browser.fill("Note, not edited or deleted later", &long).await;
    browser.press("Add note").await;
    browser.fill("Why it is given up", &long).await;
    browser.press("Cancel").await;
    browser.sees("Canceled.").await;
    office.make_odd(4711, &long);
    let mut faults = Vec::new();
    for width in [320, 600, 871, 1131, 1280] {
        browser.look(width, 800, Scheme::Light).await;
        for page in
            ["/", "/rows?model=reviews&state=parked", "/rows/reviews/4711", "/services/mail"]
        {
            browser.goto(&office.page(page)).await;
            browser.sees(&long).await;
            let name = format!("long{}-{width}", page.replace(['/', '?', '=', '&'], "-"));
            photograph(&browser, &name).await;
            let wide = browser.too_wide().await;
            faults.extend(wide.map(|wide| format!("{page} at {width} is too wide by {wide}")));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), listed(&faults));
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn why_a_form_was_refused_is_where_the_focus_is() {
    let (office, browser) = at_work("operate").await;
    browser.goto(&office.page("/rows?model=reviews&state=parked")).await;
    browser.press("Restart ticked").await;
    browser.sees("No row is ticked.").await;
    assert!(browser.has_focus("//*[@role='alert']").await);
    office.close().await;
}

// --- and whoever comes ---------------------------------------------------------------------------------

/// Somebody else's site, on another port of this machine.
fn strange_site(victim: String) -> u16 {
    let page = move || {
        let form = |name: &str, path: &str| {
            format!(
                "<form method=post action='{victim}{path}'><input name=why value=stolen>\
                 <input name=row value=4711><input name=confirmed value=1><button>{name}</button></form>"
            )
        };
        let page = ["<!doctype html><title>Win</title>".to_owned()].into_iter().chain([
            form("restart", "/rows/reviews/4711/restart"),
            form("cancel", "/rows/reviews/4711/cancel"),
            form("note", "/rows/reviews/4711/note"),
            form("bulk", "/bulk/reviews"),
            form("begin", "/bulk/reviews/begin"),
            form("hold", "/services/vbms/hold"),
            format!("<iframe src='{victim}/'></iframe>"),
        ]);
        let page = page.collect::<String>();
        App::new().default_service(web::to(move || {
            let page = page.clone();
            async move { HttpResponse::Ok().content_type("text/html; charset=utf-8").body(page) }
        }))
    };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    let server = HttpServer::new(page).workers(1).disable_signals();
    actix_rt::spawn(server.listen(listener).expect("it listens").run());
    port
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn a_form_on_another_site_does_nothing_though_the_browser_is_logged_in() {
    let (office, browser) = at_work("admin").await;
    let port = strange_site(office.page(""));
    // The same machine's other port is another origin of the same site, which the login's cookie goes to. By
    // its other name it is another site, to whose forms Chromium adds cookies that are not two minutes old.
    for site in ["127.0.0.1", "localhost"] {
        for form in ["restart", "cancel", "note", "bulk", "begin", "hold"] {
            browser.goto(&format!("http://{site}:{port}/")).await;
            browser.press(form).await;
            browser.until("it is sent", async || browser.address().await.contains("/ops/")).await;
            let told = browser.text().await;
            assert!(told.contains("was not sent from this page"), "{site} {form}: {told}");
        }
        browser.goto(&format!("http://{site}:{port}/")).await;
        let sent = "const done = arguments[1]; fetch(arguments[0], { method: 'POST', mode: 'no-cors', \
                    credentials: 'include', body: new URLSearchParams({ why: 'stolen' }) }) \
                    .then(() => done('sent'), (error) => done(String(error)))";
        let to = office.page("/rows/reviews/4711/restart");
        assert_eq!(browser.script_that_answers(sent, json!([to])).await, json!("sent"));
        let framed =
            browser.script("return document.querySelector('iframe').contentDocument", json!([]));
        assert_eq!(framed.await, json!(null), "the page is not shown in a frame");
        let complaints = listed(&browser.complaints().await);
        // From another site the frame is not even logged in.
        assert!(site == "localhost" || complaints.contains("frame-ancestors"), "{complaints}");
    }
    assert_eq!(office.actions(), []);
    assert_eq!(status(&office, 4711).await, Status::Attempted, "still parked");
    browser.goto(&office.page("/rows/reviews/4711")).await;
    assert!(!browser.text().await.contains("stolen"));
    office.close().await;
}

#[actix_rt::test]
#[ignore = "needs Chromium: ./scripts/test runs it"]
async fn markup_from_anywhere_is_shown_as_text_and_never_run() {
    const MARKUP: &str = "<img src=x onerror=alert(1)><script>alert(2)</script>'\"&amp;";
    let (office, browser) = at_work("operate").await;
    office.make_odd(4711, MARKUP);
    let row = office.page("/rows/reviews/4711");
    browser.goto(&row).await;
    browser.fill("Note, not edited or deleted later", MARKUP).await;
    browser.press("Add note").await;
    browser.sees(&format!("Ann Lee: {MARKUP}")).await;
    browser.fill("Why (kept in the history)", MARKUP).await;
    browser.press("Restart").await;
    browser.sees("Restarted.").await;
    office.make_odd(4711, MARKUP);
    browser.goto(&office.page("/services/mail")).await;
    browser.fill("Because", MARKUP).await;
    browser.press("Hold down").await;
    browser.sees("Held down.").await;
    for page in ["/", "/rows?model=reviews&state=parked", "/rows/reviews/4711", "/services/mail"] {
        browser.goto(&office.page(page)).await;
        browser.sees(MARKUP).await;
        assert_eq!(browser.dialog().await, None, "{page}");
        let made = "return document.querySelectorAll('img, script:not([src])').length";
        assert_eq!(browser.script(made, json!([])).await, json!(0), "{page}");
    }
    assert_eq!(browser.complaints().await, [] as [String; 0]);
    office.close().await;
}
