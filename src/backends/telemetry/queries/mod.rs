//! The SQL of every question the gateway can ask: scope and typed request in → [`Statement`](super::sql::Statement) out; nothing here can fail.

pub mod logs;
pub mod metrics;
pub mod services;
pub mod spans;

#[cfg(test)]
mod tests;
