//! Who does the work, stage by stage. Actors never import actors of another stage: they hold ports of messages.

pub mod ingest;
pub mod process;
pub mod serve;
pub mod store;
pub mod stream;
pub mod tenant;
