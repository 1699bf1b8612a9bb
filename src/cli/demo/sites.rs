//! The pretended shop: its hosts, routes, visitors and backends, as tables.
//!
//! Addresses and names are those reserved for documentation (RFC 5737, RFC 3849, RFC 2606), so that nothing in a
//! demo's log belongs to anybody.

/// One kind of request.
#[derive(Debug)]
pub(super) struct Route {
    /// How often, against the others.
    pub(super) weight: u32,
    /// `$host`.
    pub(super) host: &'static str,
    pub(super) method: &'static str,
    /// The target; `{id}`, `{uuid}`, `{word}`, `{page}` and `{hash}` are drawn for each request.
    pub(super) target: &'static str,
    /// The usual status.
    pub(super) status: u16,
    /// Other statuses and how many of a thousand requests end so.
    pub(super) rare: &'static [(u16, u32)],
    /// Median size of the answer, in bytes; 0 where it has no body.
    pub(super) bytes: u32,
    /// Median request time, in seconds.
    pub(super) seconds: f64,
    /// Whether a backend answers, or nginx itself.
    pub(super) backend: bool,
}

const WWW: &str = "www.shop.example";
const API: &str = "api.shop.example";
const STATIC: &str = "static.shop.example";

/// The host whose server answers those who do not say what they want.
pub(super) const DEFAULT_HOST: &str = WWW;
/// Where links lead from.
pub(super) const SHOP_REFERER: &str = "https://www.shop.example/";
/// Not everybody has read RFC 9110 on what belongs into a URL: this one gets a secret as its value.
pub(super) const RESET_TARGET: &str = "/account/reset?token=";

const fn route(
    weight: u32,
    host: &'static str,
    (method, target): (&'static str, &'static str),
    (status, rare): (u16, &'static [(u16, u32)]),
    bytes: u32,
    seconds: f64,
    backend: bool,
) -> Route {
    Route { weight, host, method, target, status, rare, bytes, seconds, backend }
}

const PAGE: (u16, &[(u16, u32)]) = (200, &[(499, 4), (500, 2)]);
const ITEM: (u16, &[(u16, u32)]) = (200, &[(404, 25), (499, 4), (500, 3)]);
const NO_CONTENT: (u16, &[(u16, u32)]) = (204, &[(500, 2), (499, 2)]);
const CACHED: (u16, &[(u16, u32)]) = (200, &[(304, 350), (404, 8)]);

pub(super) const ROUTES: [Route; 16] = [
    route(10, WWW, ("GET", "/"), PAGE, 18_400, 0.042, true),
    route(20, WWW, ("GET", "/products/{id}"), ITEM, 24_700, 0.055, true),
    route(11, WWW, ("GET", "/categories/{id}?page={page}"), PAGE, 31_200, 0.080, true),
    route(5, WWW, ("GET", "/search?q={word}"), PAGE, 22_900, 0.190, true),
    route(2, WWW, ("GET", "/old-shop/{id}"), (301, &[]), 169, 0.0005, false),
    route(3, WWW, ("POST", "/cart/items"), NO_CONTENT, 0, 0.038, true),
    route(2, WWW, ("POST", "/checkout"), PAGE, 4_100, 0.420, true),
    route(8, API, ("GET", "/v1/orders/{id}"), ITEM, 1_900, 0.021, true),
    route(7, API, ("GET", "/v1/users/{id}/cart"), ITEM, 2_600, 0.017, true),
    route(6, API, ("POST", "/v1/events"), NO_CONTENT, 0, 0.006, true),
    route(4, API, ("GET", "/v1/search?q={word}&limit=20"), PAGE, 6_800, 0.130, true),
    route(1, API, ("DELETE", "/v1/carts/{uuid}"), NO_CONTENT, 0, 0.012, true),
    route(1, API, ("GET", "/v1/health"), (200, &[]), 15, 0.001, true),
    route(5, STATIC, ("GET", "/assets/app.{hash}.js"), CACHED, 88_000, 0.002, false),
    route(13, STATIC, ("GET", "/img/{id}.jpg"), CACHED, 41_000, 0.003, false),
    route(2, STATIC, ("GET", "/media/intro.mp4"), (206, &[(499, 60)]), 1_048_576, 0.310, false),
];

pub(super) const WORDS: [&str; 10] =
    ["lamps", "chairs", "tables", "shelves", "rugs", "oak", "walnut", "outdoor", "kitchen", "sale"];

pub(super) const BACKENDS: [&str; 3] = ["10.0.2.11:8080", "10.0.2.12:8080", "10.0.2.13:8080"];

pub(super) const USER_AGENTS: [&str; 9] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "okhttp/4.12.0",
    "curl/8.14.1",
];

pub(super) const REFERERS: [&str; 4] = ["-", "-", SHOP_REFERER, "https://www.google.com/"];

/// What a browser sends to port 80 when it speaks TLS there, as nginx logs it: the head of a ClientHello
/// (RFC 8446, section 4), escaped.
pub(super) const TLS_BYTES_HEAD: &str = "\\x16\\x03\\x01\\x02\\x00\\x01\\x00\\x01\\xFC\\x03\\x03";
