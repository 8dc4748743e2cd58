//! The store: the only place that spells SQL.
//!
//! Each file is one part of the protocol (see `docs/protocol.md`): how rows are submitted, claimed,
//! settled, kept under a lease and rescued, how steps are begun, and what all hosts know of services. A
//! [`turn`] is one transaction of all that; an [`actor`] owns the connection. The statements are written
//! once, as text with names in it ([`statement`]), over what the two backends disagree on ([`dialect`]).

pub(crate) mod actions;
pub(crate) mod actor;
pub(crate) mod buckets;
#[cfg(feature = "dashboard")]
pub(crate) mod bulk;
mod cell;
pub(crate) mod claim;
pub(crate) mod counts;
mod dialect;
pub(crate) mod explain;
pub(crate) mod history;
pub(crate) mod lease;
pub(crate) mod messages;
#[cfg(feature = "dashboard")]
pub(crate) mod mine;
mod moment;
#[cfg(feature = "dashboard")]
pub(crate) mod page;
pub(crate) mod pause;
#[cfg(feature = "dashboard")]
pub(crate) mod progress;
pub(crate) mod prune;
#[cfg(feature = "dashboard")]
pub(crate) mod report;
pub(crate) mod service;
pub(crate) mod settle;
pub(crate) mod statement;
pub(crate) mod step;
pub(crate) mod submit;
pub(crate) mod sweep;
#[cfg(feature = "dashboard")]
pub(crate) mod tries;
mod trouble;
pub(crate) mod turn;

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

pub(crate) use dialect::DialectParts;
pub use dialect::{Dialect, StoreConnection};
pub(crate) use moment::Moment;
