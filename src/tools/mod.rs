//! What one tries Obtrace with: the demo shop and the load generator. Clients only, they use nothing of the server.

pub mod demo;
pub mod error;
pub mod load;
pub mod otlp_client;
pub mod units;
