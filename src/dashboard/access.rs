//! Who somebody is and what they may: the host says it on every request.

/// What somebody may do on the page. Each role may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Role {
    /// Sees all rows, their causes and their history, but no subject in full and no error's text.
    View,
    /// Restarts, cancels, notes; holds, releases and asks services; reads errors' texts.
    Operate,
    /// Everything.
    Admin,
}

impl Role {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Role::View => "view",
            Role::Operate => "operate",
            Role::Admin => "admin",
        }
    }
}

/// Somebody, as the host knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub(crate) name: String,
    pub(crate) role: Role,
}

impl Access {
    /// May look.
    pub fn view(name: impl Into<String>) -> Self {
        Access { name: name.into(), role: Role::View }
    }

    /// May act on rows and services.
    pub fn operate(name: impl Into<String>) -> Self {
        Access { name: name.into(), role: Role::Operate }
    }

    /// May do everything.
    pub fn admin(name: impl Into<String>) -> Self {
        Access { name: name.into(), role: Role::Admin }
    }

    pub(crate) fn may(&self, role: Role) -> bool {
        self.role >= role
    }
}
