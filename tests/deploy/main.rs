//! What `deploy/` holds, seen with the tools that its users have: Compose as Docker reads it, the chart as Helm renders
//! it and Kubernetes takes it, and the configuration in both as this build of Obtrace reads it.
//!
//! The tools are built by go (`dev/deploy/setup.sh`), once. Without a go there is nothing to check with: said on stderr.

mod chart;
mod compose;
mod tools;
