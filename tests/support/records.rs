//! What is logged while a test runs.

use std::sync::Mutex as StdMutex;

use log::{Level, LevelFilter, Metadata, Record};
use tokio::sync::{Mutex, MutexGuard};

static TURN: Mutex<()> = Mutex::const_new(());
static KEPT: StdMutex<Vec<(Level, String)>> = StdMutex::new(Vec::new());

struct Keep;

impl log::Log for Keep {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn && metadata.target().starts_with("asyncable")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let record = (record.level(), record.args().to_string());
            KEPT.lock().expect("records").push(record);
        }
    }

    fn flush(&self) {}
}

/// The library's warnings and errors from here on.
///
/// A process has one logger, and a record does not say whose it is: tests that read them take turns.
pub(crate) struct Records(#[expect(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

impl Records {
    pub(crate) async fn keep() -> Self {
        let turn = TURN.lock().await;
        // Fails for all but the process's first test.
        if log::set_logger(&Keep).is_ok() {
            log::set_max_level(LevelFilter::Warn);
        }
        KEPT.lock().expect("records").clear();
        Records(turn)
    }

    pub(crate) fn so_far(&self) -> Vec<(Level, String)> {
        KEPT.lock().expect("records").clone()
    }
}
