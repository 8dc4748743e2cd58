//! A real browser: headless Chromium, asked over WebDriver.
//!
//! The protocol is JSON over HTTP and the tests need a dozen of its requests, so they are made with `awc`,
//! which is here anyway: a client crate brings another HTTP stack and another ICU, 42 crates in all.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

/// How long anything may take until the test gives up on it.
const LIMIT: Duration = Duration::from_secs(60);

/// Keys, as WebDriver spells them.
pub(crate) const TAB: &str = "\u{E004}";
pub(crate) const ENTER: &str = "\u{E007}";
pub(crate) const SPACE: &str = " ";

/// What colours somebody prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Light,
    Dark,
}

/// A browser of one test's own, with a profile that nobody has used before. Gone when dropped.
pub(crate) struct Browser {
    #[expect(dead_code, reason = "held until the test ends")]
    driver: Driver,
    client: awc::Client,
    session: String,
    /// What Chromium writes, all of it.
    #[expect(dead_code, reason = "held until the browser is gone")]
    home: tempfile::TempDir,
}

/// The program that listens and starts Chromium.
struct Driver {
    program: Child,
    /// Held open: it may want to say more.
    said: BufReader<ChildStdout>,
    /// Chromium's process, which would outlive the driver.
    chromium: Option<u64>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // They may have ended by themselves; a panic here would hide the test's own.
        let _ended = self.program.kill();
        let _ended = self.program.wait();
        if let Some(process) = self.chromium {
            let _ended = Command::new("kill")
                .args(["-KILL", &process.to_string()])
                .stderr(Stdio::null())
                .status();
        }
    }
}

impl Driver {
    fn start(home: &Path) -> Self {
        let mut program = Command::new(variable("ASYNCABLE_TEST_CHROMEDRIVER"))
            .arg("--port=0")
            .env("HOME", home)
            .env("TMPDIR", home)
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver");
        let said = BufReader::new(program.stdout.take().expect("its output"));
        Driver { program, said, chromium: None }
    }

    /// The port that it has taken, which it says once it listens.
    fn port(&mut self) -> u16 {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            let read = self.said.read_line(&mut line).expect("what chromedriver says");
            assert!(read > 0, "chromedriver has ended: {all}");
            let port = line.split("on port ").nth(1).map(|rest| rest.trim().trim_end_matches('.'));
            if let Some(port) = port.and_then(|port| port.parse().ok()).filter(|port| *port > 0) {
                return port;
            }
            all += &line;
        }
    }
}

/// What WebDriver refuses: the kind of refusal, and why.
#[derive(Debug)]
pub(crate) struct Refused {
    kind: String,
    why: String,
}

impl Refused {
    /// Whether it is so only at this moment: the page is being replaced, or comes yet.
    fn passes(&self) -> bool {
        let kinds = ["no such element", "stale element reference", "element click intercepted"];
        kinds.contains(&self.kind.as_str()) || self.why.contains("does not belong to the document")
    }
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let home = tempfile::tempdir_in(variable("ASYNCABLE_TEST_CHROMIUM_DIR"));
        let home = home.expect("a temporary folder");
        let mut driver = Driver::start(home.path());
        let address = format!("http://127.0.0.1:{}/session", driver.port());
        let client = awc::Client::builder().timeout(LIMIT).finish();
        let profile = home.path().join("profile");
        let arguments = [
            "--headless=new",
            // Chromium's sandbox does not start as root, nor in most containers. It only meets our own pages.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--lang=en-US",
            "--force-device-scale-factor=1",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            // A dialog makes the next request fail, so that none goes unseen.
            "unhandledPromptBehavior": "ignore",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": {
                "binary": variable("ASYNCABLE_TEST_CHROMIUM"),
                "args": arguments,
            },
        } } });
        let begun = request(&client, "POST", &address, &capabilities).await;
        let begun = begun.expect("a session with Chromium");
        driver.chromium = begun["capabilities"]["goog:processID"].as_u64();
        assert!(driver.chromium.is_some(), "chromedriver says which process it has started");
        let id = begun["sessionId"].as_str().expect("the session's id");
        let session = format!("{address}/{id}");
        let browser = Browser { driver, client, session, home };
        browser.look(1280, 900, Scheme::Light).await;
        browser
    }

    async fn ask(&self, method: &str, what: &str, body: Value) -> Result<Value, Refused> {
        request(&self.client, method, &format!("{}{what}", self.session), &body).await
    }

    async fn must(&self, method: &str, what: &str, body: Value) -> Value {
        let answer = self.ask(method, what, body).await;
        answer
            .unwrap_or_else(|refused| panic!("{method} {what}: {}: {}", refused.kind, refused.why))
    }

    // --- looking ------------------------------------------------------------------------------------

    pub(crate) async fn goto(&self, address: &str) {
        self.must("POST", "/url", json!({ "url": address })).await;
    }

    pub(crate) async fn reload(&self) {
        self.must("POST", "/refresh", json!({})).await;
    }

    /// The address of the page that is shown.
    pub(crate) async fn address(&self) -> String {
        self.must("GET", "/url", Value::Null).await.as_str().unwrap_or_default().to_owned()
    }

    pub(crate) async fn title(&self) -> String {
        self.must("GET", "/title", Value::Null).await.as_str().unwrap_or_default().to_owned()
    }

    /// Everything that can be read on the page.
    pub(crate) async fn text(&self) -> String {
        let text = self.script("return document.body.innerText", json!([])).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page says this.
    pub(crate) async fn sees(&self, what: &str) {
        self.until(what, async || self.text().await.contains(what)).await;
    }

    /// Waits until this is so, of the page that is shown then.
    pub(crate) async fn until(&self, what: &str, so: impl AsyncFn() -> bool) {
        let waited = tokio::time::timeout(LIMIT, async {
            while !so().await {
                actix_rt::time::sleep(Duration::from_millis(50)).await;
            }
        });
        if waited.await.is_err() {
            panic!("never so: {what}\n{}\n{}", self.address().await, self.text().await);
        }
    }

    /// Runs a script in the page: the body of a function. The page's policy does not bind it.
    pub(crate) async fn script(&self, body: &str, arguments: Value) -> Value {
        self.must("POST", "/execute/sync", json!({ "script": body, "args": arguments })).await
    }

    /// The same, but its last argument is called with the answer.
    pub(crate) async fn script_that_answers(&self, body: &str, arguments: Value) -> Value {
        self.must("POST", "/execute/async", json!({ "script": body, "args": arguments })).await
    }

    /// What the browser has complained of since it was last asked.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.must("POST", "/se/log", json!({ "type": "browser" })).await;
        let entries = log.as_array().into_iter().flatten();
        entries.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The text of a dialog that is open.
    pub(crate) async fn dialog(&self) -> Option<String> {
        let asked = self.ask("GET", "/alert/text", Value::Null).await;
        asked.ok().map(|text| text.as_str().unwrap_or_default().to_owned())
    }

    // --- doing --------------------------------------------------------------------------------------

    async fn find(&self, path: &str) -> Result<String, Refused> {
        let found =
            self.ask("POST", "/element", json!({ "using": "xpath", "value": path })).await?;
        let found = found.as_object().and_then(|element| element.values().next());
        Ok(found.and_then(Value::as_str).expect("an element's id").to_owned())
    }

    /// Does something to an element, once it is there: the script may just be replacing the page.
    async fn act(&self, path: &str, what: &str, body: Value) {
        let acted = tokio::time::timeout(LIMIT, async {
            loop {
                let asked = async {
                    let element = self.find(path).await?;
                    self.ask("POST", &format!("/element/{element}/{what}"), body.clone()).await
                };
                match asked.await {
                    Ok(_) => return,
                    Err(refused) if refused.passes() => {
                        actix_rt::time::sleep(Duration::from_millis(50)).await;
                    }
                    Err(refused) => panic!("{what} {path}: {}: {}", refused.kind, refused.why),
                }
            }
        });
        if acted.await.is_err() {
            panic!("no {path} at {}:\n{}", self.address().await, self.text().await);
        }
    }

    pub(crate) async fn press(&self, button: &str) {
        self.act(&named("button", button), "click", json!({})).await;
    }

    /// Presses a button whose name goes on with what it is about.
    pub(crate) async fn press_first(&self, begins: &str) {
        let button = format!("//button[starts-with(normalize-space(), \"{begins}\")]");
        self.act(&button, "click", json!({})).await;
    }

    pub(crate) async fn follow(&self, link: &str) {
        self.act(&named("a", link), "click", json!({})).await;
    }

    /// Shows what stands under a summary.
    pub(crate) async fn open(&self, summary: &str) {
        self.act(&named("summary", summary), "click", json!({})).await;
    }

    /// Writes in the field of a label.
    pub(crate) async fn fill(&self, label: &str, text: &str) {
        self.act(&field(label), "value", json!({ "text": text })).await;
    }

    /// Ticks, or takes the tick away.
    pub(crate) async fn tick(&self, label: &str) {
        self.act(&field(label), "click", json!({})).await;
    }

    /// Takes an option of a list.
    pub(crate) async fn choose(&self, label: &str, option: &str) {
        let option = format!("{}/option[normalize-space()=\"{option}\"]", field(label));
        self.act(&option, "click", json!({})).await;
    }

    pub(crate) async fn has(&self, path: &str) -> bool {
        self.find(path).await.is_ok()
    }

    /// Whether an element can be seen where the window stands.
    pub(crate) async fn is_in_view(&self, path: &str) -> bool {
        let element = self.find(path).await.expect("an element");
        let inside = "const box = arguments[0].getBoundingClientRect(); return box.width > 0 \
                      && box.top >= 0 && box.left >= 0 && box.bottom <= innerHeight && box.right <= innerWidth";
        self.script(inside, json!([reference(&element)])).await == json!(true)
    }

    pub(crate) async fn has_focus(&self, path: &str) -> bool {
        let Ok(element) = self.find(path).await else { return false };
        let same = "return document.activeElement === arguments[0]";
        self.script(same, json!([reference(&element)])).await == json!(true)
    }

    /// Where the keyboard's focus is.
    pub(crate) async fn focus(&self) -> Focus {
        let seen = "const one = document.activeElement; const box = one.getBoundingClientRect(); \
                    const style = getComputedStyle(one); \
                    return [one.outerHTML.slice(0, 200), style.outlineStyle !== 'none' \
                    && parseFloat(style.outlineWidth) >= 2 && box.width > 0 && box.bottom > 0 \
                    && box.top < innerHeight && box.right > 0 && box.left < innerWidth]";
        let found = self.script(seen, json!([])).await;
        let element = found[0].as_str().unwrap_or_default().to_owned();
        Focus { element, is_seen: found[1] == json!(true) }
    }

    /// Presses keys one after another, wherever the focus is.
    pub(crate) async fn type_keys(&self, keys: &str) {
        let stroke = |key: char| {
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
        };
        let strokes: Vec<Value> = keys.chars().flat_map(stroke).collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": strokes });
        self.must("POST", "/actions", json!({ "actions": [keyboard] })).await;
    }

    // --- looking at it as somebody does ----------------------------------------------------------------

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.must("POST", "/goog/cdp/execute", body).await
    }

    /// A window of this size, in CSS pixels, of somebody who prefers these colours.
    pub(crate) async fn look(&self, width: u32, height: u32, scheme: Scheme) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let value = match scheme {
            Scheme::Light => "light",
            Scheme::Dark => "dark",
        };
        let features = json!([{ "name": "prefers-color-scheme", "value": value }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// From now on no page's own script runs. Those of the test do.
    pub(crate) async fn without_scripts(&self) {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
    }

    /// Pages that are loaded from now on are read by somebody whose clock is in this zone.
    pub(crate) async fn move_to(&self, zone: &str) {
        self.devtools("Emulation.setTimezoneOverride", json!({ "timezoneId": zone })).await;
    }

    /// Forgets who somebody is.
    pub(crate) async fn log_out(&self) {
        self.devtools("Network.clearBrowserCookies", json!({})).await;
    }

    /// Has the page bring itself up to date now, as it does when somebody comes back to it.
    pub(crate) async fn come_back(&self) {
        let back = "document.dispatchEvent(new Event('visibilitychange'))";
        self.script(back, json!([])).await;
    }

    /// The page as a PNG, from its top down to so many pixels, or its end if that comes first.
    pub(crate) async fn picture(&self, at_most: u32) -> Vec<u8> {
        let size = "return [innerWidth, document.documentElement.scrollHeight]";
        let size = self.script(size, json!([])).await;
        let height = size[1].as_u64().unwrap_or(0).min(u64::from(at_most));
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": height, "scale": 1 });
        let asked = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let taken = self.devtools("Page.captureScreenshot", asked).await;
        from_base64(taken["data"].as_str().expect("a picture"))
    }

    /// What axe finds wrong with the page, a line each: all of its rules for WCAG 2.2 AA, and what it calls
    /// best practice.
    pub(crate) async fn faults(&self) -> Vec<String> {
        let there = self.script("return typeof window.axe === 'object'", json!([])).await;
        if there != json!(true) {
            // Read now, not compiled in: the published package is without it.
            let place =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vendor/axe-core/axe.min.js");
            let axe = std::fs::read_to_string(place).expect("axe");
            self.script(&axe, json!([])).await;
        }
        let run = "const done = arguments[arguments.length - 1]; \
                   axe.run(document, { resultTypes: ['violations'], \
                   rules: { 'target-size': { enabled: true } } }).then( \
                   (found) => done(found.violations.map((fault) => [fault.id, fault.help, \
                   fault.nodes.map((node) => node.html + ': ' + node.failureSummary)])), \
                   (error) => done([['axe', String(error), []]]))";
        let found = self.script_that_answers(run, json!([])).await;
        let faults = found.as_array().expect("a list");
        faults.iter().map(|fault| fault.to_string().chars().take(2000).collect()).collect()
    }

    /// Names of elements that two have, of which a label or a shape finds only one.
    pub(crate) async fn doubled_ids(&self) -> Vec<String> {
        let doubled = "const ids = [...document.querySelectorAll('[id]')].map((one) => one.id); \
                       return ids.filter((id, at) => ids.indexOf(id) !== at)";
        let doubled = self.script(doubled, json!([])).await;
        let doubled = doubled.as_array().into_iter().flatten();
        doubled.filter_map(|id| id.as_str().map(ToOwned::to_owned)).collect()
    }

    /// By how many pixels the page is wider than the window, and what reaches farthest.
    pub(crate) async fn too_wide(&self) -> Option<String> {
        let measured = self
            .script(
                "const page = document.documentElement; \
                 const over = Math.max(page.scrollWidth, document.body.scrollWidth) - page.clientWidth; \
                 if (over <= 0) return null; \
                 const all = [...document.body.querySelectorAll('*')]; \
                 all.sort((a, b) => b.getBoundingClientRect().right - a.getBoundingClientRect().right); \
                 return over + ' px: ' + all.slice(0, 3).map((one) => one.outerHTML.slice(0, 160)).join(' ')",
                json!([]),
            )
            .await;
        measured.as_str().map(ToOwned::to_owned)
    }
}

async fn request(
    client: &awc::Client,
    method: &str,
    address: &str,
    body: &Value,
) -> Result<Value, Refused> {
    let sent = match method {
        "GET" => client.get(address).send().await,
        _ => client.post(address).send_json(body).await,
    };
    let mut answer = sent.unwrap_or_else(|error| panic!("chromedriver does not answer: {error}"));
    // Pictures are large.
    let body = answer.body().limit(64 << 20).await.expect("chromedriver's answer");
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let value = body["value"].clone();
    if answer.status().is_success() {
        return Ok(value);
    }
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    Err(Refused { kind: text("error"), why: text("message") })
}

/// The element that has the keyboard's focus, and whether somebody can see that it has.
pub(crate) struct Focus {
    pub(crate) element: String,
    pub(crate) is_seen: bool,
}

/// An element as an argument of a script: the name is the protocol's.
fn reference(element: &str) -> Value {
    json!({ "element-6066-11e4-a52e-4f735466cecf": element })
}

/// The XPath of an element by what it is called.
pub(crate) fn named(element: &str, name: &str) -> String {
    format!("//{element}[normalize-space()=\"{name}\"]")
}

/// The XPath of the field of a label: the one that it names, or that it holds.
pub(crate) fn field(label: &str) -> String {
    let label = named("label", label);
    format!("(//*[@id={label}/@for]|{label}//input)")
}

fn variable(name: &str) -> PathBuf {
    let value = std::env::var(name);
    let value = value
        .unwrap_or_else(|_| panic!("{name} is not set: run ./scripts/test, which finds Chromium"));
    Path::new(&value).to_owned()
}

fn from_base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0);
    for digit in text.bytes().filter_map(|byte| DIGITS.iter().position(|known| *known == byte)) {
        bits = (bits << 6) | u32::try_from(digit).expect("below 64");
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xFF).expect("a byte"));
        }
    }
    bytes
}

/// One fault or complaint a line, for a message.
pub(crate) fn listed(faults: &[String]) -> String {
    faults.iter().fold(String::new(), |mut all, fault| {
        let _written = writeln!(all, "- {fault}");
        all
    })
}
