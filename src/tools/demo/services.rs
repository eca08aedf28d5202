//! Who is in the shop: the services, their languages, versions and the resource each reports.

use opentelemetry_proto::tonic::resource::v1::Resource;

use super::otlp::{int, text};

/// A service of the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// The web server customers talk to.
    Frontend,
    /// Shopping carts in Redis.
    Cart,
    /// Turns carts into orders.
    Checkout,
    /// Charges cards at a bank.
    Payment,
    /// Products and stock in Postgres.
    Inventory,
    /// Quotes and ships, fed by the order queue.
    Shipping,
    /// What else one might buy.
    Recommendation,
    /// Order confirmations, fed by the order queue.
    Email,
}

impl Service {
    /// All services; the position is the number used in tables.
    pub const ALL: [Service; 8] = [
        Self::Frontend,
        Self::Cart,
        Self::Checkout,
        Self::Payment,
        Self::Inventory,
        Self::Shipping,
        Self::Recommendation,
        Self::Email,
    ];

    /// `service.name`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Frontend => "frontend",
            Self::Cart => "cart",
            Self::Checkout => "checkout",
            Self::Payment => "payment",
            Self::Inventory => "inventory",
            Self::Shipping => "shipping",
            Self::Recommendation => "recommendation",
            Self::Email => "email",
        }
    }

    fn language(self) -> &'static str {
        match self {
            Self::Frontend | Self::Email => "nodejs",
            Self::Cart | Self::Shipping => "rust",
            Self::Checkout | Self::Inventory => "go",
            Self::Payment => "java",
            Self::Recommendation => "python",
        }
    }

    /// `service.version`; a bad deploy moves recommendation on.
    pub fn version(self, deployed: bool) -> &'static str {
        match self {
            Self::Recommendation if deployed => "1.9.0",
            Self::Recommendation => "1.8.2",
            Self::Frontend => "4.12.1",
            Self::Payment => "2.3.0",
            _ => "1.4.0",
        }
    }

    /// The resource this service reports with all it sends.
    pub fn resource(self, deployed: bool) -> Resource {
        let (name, version) = (self.name(), self.version(deployed));
        let pod = format!(
            "{name}-{}",
            if deployed && self == Self::Recommendation { "7d9f4-x2x" } else { "5c8b6-abc" }
        );
        let attributes = vec![
            text("service.name", name),
            text("service.namespace", "shop"),
            text("service.version", version),
            text("service.instance.id", &pod),
            text("deployment.environment.name", "demo"),
            text("telemetry.sdk.name", "opentelemetry"),
            text("telemetry.sdk.language", self.language()),
            text("telemetry.sdk.version", "1.30.0"),
            text("host.name", &format!("node-{}", self as usize % 3 + 1)),
            text("k8s.namespace.name", "shop"),
            text("k8s.pod.name", &pod),
            text("cloud.region", "eu-central-1"),
            int("process.pid", 100 + self as i64),
        ];
        Resource { attributes, ..Default::default() }
    }
}
