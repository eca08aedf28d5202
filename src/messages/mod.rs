//! Every typed message, by the stage that receives it. Each says its delivery contract.

pub mod ingest;
pub mod process;
pub mod serve;
pub mod store;
pub mod stream;
pub mod tenant;
