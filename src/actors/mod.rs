//! Who does the work, stage by stage. Actors never import actors of another stage: they hold ports of messages.

pub mod serve;
