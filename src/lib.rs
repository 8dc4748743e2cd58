//! Background work for Diesel rows.

mod asyncable;
mod clock;
mod columns;
mod failure;
mod migrate;
pub mod original;
mod retry;
mod scope;
mod service;
mod store;

pub use crate::{
    asyncable::{AsOf, Asyncable, Key, Stored},
    clock::Clock,
    columns::Columns,
    failure::{Failure, Kind, Outcome},
    migrate::{MigrateError, migrate, revert},
    retry::RetryPolicy,
    scope::{OldestFirst, Scope, Status, StatusOf},
    service::Service,
    store::{Dialect, StoreConnection},
};
