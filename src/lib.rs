#![doc = include_str!("../README.md")]

mod asyncable;
mod attempt;
mod clock;
mod columns;
#[cfg(feature = "dashboard")]
mod dashboard;
mod explain;
mod failure;
pub mod host_table;
#[cfg(feature = "http")]
pub mod http;
#[doc(hidden)]
pub mod measure;
mod messages;
mod migrate;
pub mod original;
mod outage;
mod processor;
mod retry;
mod scope;
mod service;
mod step;
mod store;
mod supervisor;
pub mod testing;

pub use crate::{
    asyncable::{AsOf, Asyncable, Key, Keyed, Stored},
    attempt::{Attempt, IdempotencyKey},
    clock::Clock,
    columns::Columns,
    explain::Explanation,
    failure::{Failure, Kind, Outcome},
    messages::{MessageKind, Messages, UserMessage},
    migrate::{MigrateError, migrate, revert},
    processor::Processor,
    retry::RetryPolicy,
    scope::{OldestFirst, Scope, Status, StatusOf},
    service::Service,
    step::{FindStep, Step},
    store::counts::Counts,
    store::submit::{Canceled, Restarted},
    store::{Dialect, StoreConnection},
    supervisor::{
        AskService, Cancel, Event, Explain, GetCounts, GetStatus, Handle, HoldService, Pause,
        ReleaseService, RequestError, Restart, Resume, Shutdown, StartError, Submit, SubmitAll,
        Subscribe, Supervisor, SupervisorActor, Sweep, Wake,
    },
};

#[cfg(feature = "dashboard")]
pub use crate::dashboard::{Access, Dashboard, Role};
