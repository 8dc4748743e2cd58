//! A PostgreSQL server of one test's own, for tests that stop it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use diesel::{Connection, PgConnection};

/// Gone when dropped.
pub(crate) struct Server {
    programs: PathBuf,
    data: PathBuf,
}

impl Server {
    /// Starts one. `name` is its folder's.
    ///
    /// It has no port, only a socket in its own folder, which nobody else on this machine can enter:
    /// so it needs neither a password nor a free number.
    pub(crate) fn new(name: &str) -> Self {
        let data = folder().join(format!("{name}-{}", std::process::id()));
        let server = Server { programs: variable("ASYNCABLE_TEST_PG_BIN"), data };
        let like_the_others =
            ["-U", "asyncable", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"];
        server.run("initdb", &like_the_others);
        server.start();
        server
    }

    pub(crate) fn start(&self) {
        let folder = self.data.display();
        // No fsync, since nothing here must outlive a power cut; the zone is not UTC, so that a
        // statement that asks the session's zone by mistake is found out.
        let settings = format!("-F -h '' -k '{folder}' -c timezone=America/New_York");
        let log = self.data.join("server.log").display().to_string();
        self.run("pg_ctl", &["start", "-w", "-t", "60", "-l", &log, "-o", &settings]);
    }

    /// As a power cut would, but for what the machine has in memory.
    pub(crate) fn stop(&self) {
        self.run("pg_ctl", &["stop", "-m", "immediate"]);
    }

    pub(crate) fn url(&self) -> String {
        format!("host='{}' user=asyncable dbname=postgres", self.data.display())
    }

    pub(crate) fn conn(&self) -> PgConnection {
        PgConnection::establish(&self.url()).expect("a connection to the test's own server")
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        // Nothing of a server may hold this process's output open: whoever reads it to its end waits.
        let status = Command::new(self.programs.join(program))
            .arg("-D")
            .arg(&self.data)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let status = status.expect("a program of PostgreSQL's");
        assert!(status.success(), "{program} {arguments:?} failed: {status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.data.join("postmaster.pid").exists() {
            self.stop();
        }
        // What is left over goes with the folder of all of them.
        let _gone_or_left = std::fs::remove_dir_all(&self.data);
    }
}

/// A folder in which the user that servers run as may write.
pub(crate) fn folder() -> PathBuf {
    variable("ASYNCABLE_TEST_PG_DIR")
}

fn variable(name: &str) -> PathBuf {
    let value = std::env::var(name);
    let value =
        value.unwrap_or_else(|_| panic!("{name} is not set: run ./scripts/test, which sets it"));
    Path::new(&value).to_owned()
}
