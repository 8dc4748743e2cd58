//! Who somebody is and what they may: the host says it on every request.

/// What somebody may do on the page. Each role may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Role {
    /// Sees their own rows alone, in one sentence each, and the messages about them.
    Own,
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
            Role::Own => "own",
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
    user: Option<String>,
}

impl Access {
    /// May see what is theirs, and nothing else: the page `mine`.
    pub fn own(name: impl Into<String>) -> Self {
        Access { name: name.into(), role: Role::Own, user: None }
    }

    /// May look.
    pub fn view(name: impl Into<String>) -> Self {
        Access { name: name.into(), role: Role::View, user: None }
    }

    /// May act on rows and services.
    pub fn operate(name: impl Into<String>) -> Self {
        Access { name: name.into(), role: Role::Operate, user: None }
    }

    /// May do everything.
    pub fn admin(name: impl Into<String>) -> Self {
        Access { name: name.into(), role: Role::Admin, user: None }
    }

    /// What the models' `user` columns hold where a row is theirs. By default their name.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Whose rows are theirs.
    pub(crate) fn as_user(&self) -> &str {
        self.user.as_ref().unwrap_or(&self.name)
    }

    pub(crate) fn may(&self, role: Role) -> bool {
        self.role >= role
    }
}
