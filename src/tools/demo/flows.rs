//! What customers do in the shop: one visit in, its trace and those of the messages it caused out.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rand::RngExt;
use rand::rngs::StdRng;

use super::fault::Fault;
use super::otlp::{flag, int, list, real, text};
use super::services::Service;
use super::trace::{At, Level, MS, Trace, Tracer, What};

const PRODUCTS: u32 = 400;
const CUSTOMERS: u32 = 5_000;
const BANK_TIMEOUT_MS: f64 = 3_000.0;

/// One visit of a customer at `start_ns`; `fault` is what is wrong at that time. The first trace is the visit itself.
pub(super) fn visit(rng: &mut StdRng, start_ns: u64, fault: Fault) -> Vec<Trace> {
    let choice = rng.random_range(0..100);
    let customer = format!("c-{:05}", rng.random_range(0..CUSTOMERS));
    let product = rng.random_range(0..PRODUCTS);
    let mut shop = Visit { t: Tracer::new(rng, start_ns), fault, customer, product, queued: Vec::new() };
    match choice {
        0..55 => shop.page("GET", "/product/{id}", Visit::product_page),
        55..58 => shop.page("GET", "/product/{id}", Visit::unknown_product),
        58..78 => shop.page("POST", "/cart", Visit::add_to_cart),
        78..88 => shop.page("GET", "/cart", Visit::view_cart),
        _ => shop.page("POST", "/checkout", Visit::buy),
    }
    let (trace, queued) = (shop.t.trace, shop.queued);
    std::iter::once(trace).chain(queued.into_iter().map(|order| order.consume(rng))).collect()
}

struct Visit<'a> {
    t: Tracer<'a>,
    fault: Fault,
    customer: String,
    product: u32,
    queued: Vec<Order>,
}

/// An order on the queue, waiting for a consumer.
struct Order {
    id: String,
    sent_ns: u64,
    producer: (Vec<u8>, Vec<u8>),
    consumer: Service,
}

impl Visit<'_> {
    /// A request of a browser to the frontend.
    fn page(&mut self, method: &'static str, route: &'static str, handler: fn(&mut Self, At) -> i64) {
        let url = route.replace("{id}", &self.product.to_string());
        let attributes = vec![
            text("http.request.method", method),
            text("http.route", route),
            text("url.path", &url),
            text("url.scheme", "https"),
            text("server.address", "shop.example"),
            text("client.address", &format!("203.0.113.{}", self.product % 250)),
            text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64) Firefox/143.0"),
            text("enduser.id", &self.customer),
        ];
        let at =
            self.t.open(Service::Frontend, None, SpanKind::Server, &format!("{method} {route}"), attributes);
        self.t.work(1.5);
        let status = handler(self, at);
        let render = self.t.open(Service::Frontend, Some(at), SpanKind::Internal, "render", vec![]);
        self.t.work(2.0);
        self.t.close(render);
        self.answer(at, route, status);
        let level = if status >= 500 { Level::Error } else { Level::Info };
        let attributes = vec![int("http.response.status_code", status), text("http.route", route)];
        self.t.log(at, level, format!("{method} {url} {status}"), attributes);
    }

    /// Closes a server span with its status code.
    fn answer(&mut self, at: At, route: &'static str, status: i64) {
        self.t.add(at, int("http.response.status_code", status));
        if status >= 500 {
            self.t.fail(at, &status.to_string(), "");
        }
        self.t.close(at);
        self.t.measure(at, What::Http(route, status));
    }

    /// A call from one service to another: a client span, a server span in it, and what the server does.
    fn call(
        &mut self,
        from: (Service, At),
        to: Service,
        method: &'static str,
        route: &'static str,
        handler: impl FnOnce(&mut Self, At) -> i64,
    ) -> i64 {
        let attributes = vec![
            text("http.request.method", method),
            text("server.address", to.name()),
            int("server.port", 8080),
            text("url.full", &format!("http://{}:8080{route}", to.name())),
        ];
        let client = self.t.open(from.0, Some(from.1), SpanKind::Client, method, attributes);
        self.t.work(0.3);
        let attributes = vec![
            text("http.request.method", method),
            text("http.route", route),
            text("url.path", route),
            text("network.protocol.version", "1.1"),
            text("client.address", from.0.name()),
        ];
        let server =
            self.t.open(to, Some(client), SpanKind::Server, &format!("{method} {route}"), attributes);
        self.t.work(0.6);
        let status = handler(self, server);
        self.answer(server, route, status);
        self.t.work(0.2);
        self.t.add(client, int("http.response.status_code", status));
        if status >= 400 {
            self.t.fail(client, &status.to_string(), "");
        }
        self.t.close(client);
        status
    }

    /// A call to a database.
    fn query(
        &mut self,
        from: (Service, At),
        system: &'static str,
        operation: &'static str,
        statement: &str,
        mean_ms: f64,
    ) -> At {
        let namespace = if system == "redis" { "0" } else { "shop" };
        let attributes = vec![
            text("db.system.name", system),
            text("db.namespace", namespace),
            text("db.operation.name", operation),
            text("db.query.text", statement),
            text("server.address", system),
        ];
        let name = statement.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let at = self.t.open(from.0, Some(from.1), SpanKind::Client, &name, attributes);
        if self.fault == Fault::SlowDb && system == "postgresql" {
            self.t.event(at, "connection.pool.wait", vec![int("db.client.connection.pending_requests", 37)]);
            self.t.work(mean_ms * 15.0);
            self.t.log(
                at,
                Level::Warn,
                format!("slow query: {statement}"),
                vec![text("db.system.name", system)],
            );
        } else {
            self.t.work(mean_ms);
        }
        self.t.close(at);
        self.t.measure(at, What::Db(system, operation));
        at
    }

    fn product_page(&mut self, page: At) -> i64 {
        let from = (Service::Frontend, page);
        let status = self.call(from, Service::Inventory, "GET", "/products/{id}", |shop, at| {
            shop.t.add(at, int("shop.product.id", shop.product.into()));
            shop.query(
                (Service::Inventory, at),
                "postgresql",
                "SELECT",
                "SELECT products WHERE id = $1",
                4.0,
            );
            200
        });
        let recommended =
            self.call(from, Service::Recommendation, "GET", "/recommendations", Self::recommend);
        if recommended != 200 {
            let attributes = vec![int("shop.product.id", self.product.into())];
            self.t.log(page, Level::Warn, "page shown without recommendations".to_owned(), attributes);
        }
        status
    }

    fn recommend(&mut self, at: At) -> i64 {
        let rank = self.t.open(Service::Recommendation, Some(at), SpanKind::Internal, "rank", vec![]);
        self.t.add(rank, list("shop.recommendation.models", &["co-visit", "popular"]));
        self.t.work(6.0);
        let broken = self.fault == Fault::BadDeploy && self.product.is_multiple_of(3);
        if broken {
            let stack = "Traceback (most recent call last):\n  File \"/app/rank.py\", line 88, in rank\n    score = item.price * weights[item.category]\nTypeError: unsupported operand type(s) for *: 'NoneType' and 'float'";
            self.t.throw(
                rank,
                "TypeError",
                "unsupported operand type(s) for *: 'NoneType' and 'float'",
                stack,
            );
            let message =
                "ranking failed: unsupported operand type(s) for *: 'NoneType' and 'float'".to_owned();
            self.t.log(
                rank,
                Level::Error,
                message,
                vec![text("exception.type", "TypeError"), text("exception.stacktrace", stack)],
            );
        }
        self.t.add(rank, flag("shop.recommendation.cached", self.product % 4 == 1));
        self.t.close(rank);
        if broken { 500 } else { 200 }
    }

    fn unknown_product(&mut self, page: At) -> i64 {
        self.call((Service::Frontend, page), Service::Inventory, "GET", "/products/{id}", |shop, at| {
            shop.query(
                (Service::Inventory, at),
                "postgresql",
                "SELECT",
                "SELECT products WHERE id = $1",
                2.0,
            );
            let attributes = vec![int("shop.product.id", shop.product.into())];
            shop.t.log(at, Level::Warn, format!("product {} does not exist", shop.product), attributes);
            404
        })
    }

    fn add_to_cart(&mut self, page: At) -> i64 {
        let key = format!("cart:{}", self.customer);
        self.call((Service::Frontend, page), Service::Cart, "POST", "/carts/{id}/items", |shop, at| {
            shop.query((Service::Cart, at), "redis", "HSET", &format!("HSET {key}"), 0.5);
            shop.query((Service::Cart, at), "redis", "EXPIRE", &format!("EXPIRE {key}"), 0.3);
            let attributes =
                vec![int("shop.product.id", shop.product.into()), text("enduser.id", &shop.customer)];
            shop.t.log(at, Level::Debug, "item added to cart".to_owned(), attributes);
            201
        })
    }

    fn view_cart(&mut self, page: At) -> i64 {
        let status = self.read_cart((Service::Frontend, page));
        self.call((Service::Frontend, page), Service::Inventory, "GET", "/stock", |shop, at| {
            shop.query(
                (Service::Inventory, at),
                "postgresql",
                "SELECT",
                "SELECT stock WHERE id = ANY($1)",
                5.0,
            );
            200
        });
        status
    }

    fn read_cart(&mut self, from: (Service, At)) -> i64 {
        let key = format!("cart:{}", self.customer);
        self.call(from, Service::Cart, "GET", "/carts/{id}", |shop, at| {
            shop.query((Service::Cart, at), "redis", "HGETALL", &format!("HGETALL {key}"), 0.6);
            200
        })
    }

    fn buy(&mut self, page: At) -> i64 {
        self.call((Service::Frontend, page), Service::Checkout, "POST", "/orders", Self::order)
    }

    /// Cart, stock, shipping, payment, then the queue; the first that fails ends it.
    fn order(&mut self, at: At) -> i64 {
        let from = (Service::Checkout, at);
        let order = format!("o-{:08x}", self.t.rng.random::<u32>());
        let value = f64::from(self.t.rng.random_range(500_u32..25_000)) / 100.0;
        self.t.add(at, text("shop.order.id", &order));
        self.t.add(at, real("shop.order.value", value));
        self.read_cart(from);
        if self.call(from, Service::Inventory, "POST", "/reservations", Self::reserve) != 201 {
            let attributes = vec![text("shop.order.id", &order), real("shop.order.value", value)];
            self.t.log(
                at,
                Level::Error,
                format!("order {order} lost: stock could not be reserved"),
                attributes,
            );
            return 409;
        }
        self.call(from, Service::Shipping, "POST", "/quotes", |shop, _| {
            shop.t.work(3.0);
            200
        });
        if !self.pay(from, &order, value) {
            return 504;
        }
        self.publish(at, &order);
        self.t.measure(at, What::Order(value));
        let attributes = vec![text("shop.order.id", &order), real("shop.order.value", value)];
        self.t.log(at, Level::Info, format!("order {order} placed"), attributes);
        200
    }

    fn reserve(&mut self, at: At) -> i64 {
        let from = (Service::Inventory, at);
        self.query(from, "postgresql", "SELECT", "SELECT stock FOR UPDATE", 4.0);
        let update =
            self.query(from, "postgresql", "UPDATE", "UPDATE stock SET reserved = reserved + $1", 6.0);
        if self.fault == Fault::InventoryErrors && self.t.rng.random_bool(0.5) {
            let message = "could not serialize access due to concurrent update";
            self.t.throw(
                update,
                "40001",
                message,
                "pq: could not serialize access\n\tat inventory.Reserve (reserve.go:71)",
            );
            self.t.log(
                at,
                Level::Error,
                format!("reservation failed: {message}"),
                vec![text("db.response.status_code", "40001")],
            );
            return 409;
        }
        201
    }

    /// Charges the card, once more after a timeout.
    fn pay(&mut self, from: (Service, At), order: &str, value: f64) -> bool {
        for attempt in 1..=2 {
            let status =
                self.call(from, Service::Payment, "POST", "/charges", |shop, at| shop.charge(at, value));
            if status == 200 {
                return true;
            }
            let attributes = vec![text("shop.order.id", order), int("shop.payment.attempt", attempt)];
            let level = if attempt == 2 { Level::Error } else { Level::Warn };
            self.t.log(from.1, level, format!("payment of order {order} failed with {status}"), attributes);
        }
        false
    }

    fn charge(&mut self, at: At, value: f64) -> i64 {
        let bank: Vec<KeyValue> = vec![
            text("http.request.method", "POST"),
            text("server.address", "api.bank.example"),
            int("server.port", 443),
            text("url.full", "https://api.bank.example/v2/charges"),
            real("shop.payment.amount", value),
            text("shop.payment.currency", "EUR"),
        ];
        let client = self.t.open(Service::Payment, Some(at), SpanKind::Client, "POST", bank);
        let usual_trouble = self.t.rng.random_bool(0.004);
        let late = usual_trouble || self.fault == Fault::PaymentTimeout && self.t.rng.random_bool(0.4);
        if late {
            self.t.now_ns += (BANK_TIMEOUT_MS * MS) as u64;
            let message = "api.bank.example did not answer within 3000 ms";
            let stack = "java.net.http.HttpTimeoutException: request timed out\n\tat shop.payment.Bank.charge(Bank.java:52)";
            self.t.throw(client, "java.net.http.HttpTimeoutException", message, stack);
            self.t.log(
                client,
                Level::Error,
                message.to_owned(),
                vec![text("server.address", "api.bank.example")],
            );
        } else {
            self.t.work(45.0);
            self.t.add(client, int("http.response.status_code", 200));
        }
        self.t.close(client);
        if late { 504 } else { 200 }
    }

    /// Puts the order on the queue, from where shipping and email take it.
    fn publish(&mut self, at: At, order: &str) {
        let attributes = vec![
            text("messaging.system", "kafka"),
            text("messaging.destination.name", "orders"),
            text("messaging.operation.type", "send"),
            text("messaging.message.id", order),
            int("messaging.kafka.offset", i64::from(self.product) * 17),
        ];
        let send = self.t.open(Service::Checkout, Some(at), SpanKind::Producer, "send orders", attributes);
        self.t.work(1.2);
        self.t.close(send);
        for consumer in [Service::Shipping, Service::Email] {
            let producer = self.t.ids(send);
            self.queued.push(Order { id: order.to_owned(), sent_ns: self.t.now_ns, producer, consumer });
        }
    }
}

impl Order {
    /// The trace of a consumer: its own, with a link to the span that sent the message.
    fn consume(self, rng: &mut StdRng) -> Trace {
        let waited = rng.random_range(5.0..120.0) * MS;
        let mut t = Tracer::new(rng, self.sent_ns + waited as u64);
        let attributes = vec![
            text("messaging.system", "kafka"),
            text("messaging.destination.name", "orders"),
            text("messaging.operation.type", "process"),
            text("messaging.consumer.group.name", self.consumer.name()),
            text("messaging.message.id", &self.id),
        ];
        let at = t.open(self.consumer, None, SpanKind::Consumer, "process orders", attributes);
        t.link(at, &self.producer.0, &self.producer.1);
        t.work(4.0);
        let (step, message) = match self.consumer {
            Service::Email => ("render confirmation", "confirmation sent"),
            _ => ("book parcel", "parcel booked"),
        };
        let inner =
            t.open(self.consumer, Some(at), SpanKind::Internal, step, vec![text("shop.order.id", &self.id)]);
        t.work(8.0);
        t.close(inner);
        t.log(
            at,
            Level::Info,
            format!("{message} for order {}", self.id),
            vec![text("shop.order.id", &self.id)],
        );
        t.close(at);
        t.trace
    }
}
