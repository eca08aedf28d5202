//! What can be asked of the store and what comes back: query parameters in → typed requests, store rows in → answers out; bad input is named.

pub mod answer;
pub mod attributes;
pub mod bounds;
pub mod cursor;
pub mod failure;
pub mod hex;
pub mod histogram;
pub mod logs_lang;
pub mod metrics;
pub mod params;
pub mod problem;
pub mod request;
pub mod time;

pub use answer::QueryAnswer;
pub use bounds::{Asked, Bounds};
pub use failure::{BadParameter, QueryError};
pub use request::QueryRequest;
