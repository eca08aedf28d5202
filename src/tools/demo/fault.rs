//! What can go wrong in the shop, and what of it shows where.

/// A fault planted on request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// Nothing but the usual few errors.
    None,
    /// The bank behind payment answers too late.
    PaymentTimeout,
    /// Postgres behind inventory is slow.
    SlowDb,
    /// A new version of recommendation fails on some products.
    BadDeploy,
    /// Inventory cannot reserve stock.
    InventoryErrors,
}

impl Fault {
    /// What one should be able to find.
    pub fn effect(self) -> &'static str {
        match self {
            Self::None => "nothing but the usual few errors",
            Self::PaymentTimeout => {
                "40 % of the calls from payment to api.bank.example end after 3 s with a timeout; checkout answers 504 after one retry"
            }
            Self::SlowDb => {
                "queries of inventory on postgres take 15 times as long and wait for a connection; product pages and checkouts slow down"
            }
            Self::BadDeploy => {
                "recommendation 1.9.0 replaces 1.8.2 and fails with a TypeError for a third of the calls; the frontend shows pages without recommendations"
            }
            Self::InventoryErrors => {
                "half of the stock reservations fail with a serialization error; checkout answers 409 and logs the order it lost"
            }
        }
    }
}
