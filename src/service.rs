//! An outside service, as a constant of the host's.

use std::time::Duration;

/// An outside service that processors call.
///
/// A constant, so that a wrong name is a compile error:
///
/// ```
/// use asyncable::Service;
/// use std::time::Duration;
///
/// pub const VBMS: Service = Service::new("vbms").settles_within(Duration::from_secs(30 * 60));
/// assert_eq!(VBMS.name(), "vbms");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    name: &'static str,
    settles_within: Duration,
}

impl Service {
    pub(crate) const SETTLES_WITHIN: Duration = Duration::from_secs(15 * 60);

    /// A service with the defaults of each setting below. The name is stored and shown.
    pub const fn new(name: &'static str) -> Self {
        Service { name, settles_within: Self::SETTLES_WITHIN }
    }

    /// How long a call whose outcome is unknown (a time-out, a connection reset after sending) may still
    /// be under way at the service. Default 15 minutes.
    ///
    /// A row that failed so is not tried again before that: asked too early, the service answers that it
    /// has nothing, and the next call doubles what the first one did.
    pub const fn settles_within(mut self, settles_within: Duration) -> Self {
        self.settles_within = settles_within;
        self
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) const fn settles(&self) -> Duration {
        self.settles_within
    }
}
