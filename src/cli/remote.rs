//! A running Obtrace seen from the command line: a path of its API in → JSON out, or a sentence that says what to do.

use std::time::Duration;

use clap::Args;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

/// Time an answer may take; an order waits for its end on the other side, for half a minute at the most.
const PATIENCE: Duration = Duration::from_secs(45);

/// Where it runs, and the token that opens its admin side.
#[derive(Debug, Clone, Args)]
pub(super) struct Remote {
    /// Address of the API
    #[arg(long, default_value = "http://127.0.0.1:8080", env = "OBTRACE_API", global = true)]
    pub(super) api: String,
    /// The admin token, where one is set
    #[arg(long, env = "OBTRACE_ADMIN_TOKEN", hide_env_values = true, global = true)]
    token: Option<String>,
    /// Time an answer may take
    #[arg(skip = PATIENCE)]
    patience: Duration,
}

impl Remote {
    /// One at this address, which is asked whether it is there at all.
    pub(super) fn at(api: String, token: Option<String>, patience: Duration) -> Self {
        Self { api, token, patience }
    }

    /// `GET` of a path.
    pub(super) async fn get(&self, path: &str) -> Result<Value, String> {
        let url = self.url(path);
        let answer = self.send(self.request(Method::GET, path)?.timeout(self.patience), &url).await?;
        answer.json().await.map_err(|error| format!("{url} answers what is no JSON: {error}"))
    }

    /// `GET` of a path with a query.
    pub(super) async fn get_with(&self, path: &str, query: &[(String, String)]) -> Result<Value, String> {
        let url = self.url(path);
        let request = self.request(Method::GET, path)?.query(query).timeout(self.patience);
        let answer = self.send(request, &url).await?;
        answer.json().await.map_err(|error| format!("{url} answers what is no JSON: {error}"))
    }

    /// `GET` of a path as text.
    pub(super) async fn text(&self, path: &str) -> Result<String, String> {
        let url = self.url(path);
        let answer = self.send(self.request(Method::GET, path)?.timeout(self.patience), &url).await?;
        answer.text().await.map_err(|error| format!("{url} broke off: {error}"))
    }

    /// `POST` of JSON to a path.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let url = self.url(path);
        let request = self.request(Method::POST, path)?.timeout(self.patience).json(body);
        let answer = self.send(request, &url).await?;
        answer.json().await.map_err(|error| format!("{url} answers what is no JSON: {error}"))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.api.trim_end_matches('/'))
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, String> {
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| format!("the HTTP client cannot be made: {error}"))?;
        let request = client.request(method, self.url(path));
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    /// Sends it. A refusal is told in the words of its problem document.
    async fn send(&self, request: RequestBuilder, url: &str) -> Result<Response, String> {
        let answer = request
            .send()
            .await
            .map_err(|error| format!("{url} does not answer: {error}; is Obtrace running there? (--api)"))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let problem: Value = answer.json().await.unwrap_or_default();
        let detail = problem["detail"].as_str().unwrap_or("no reason was given");
        Err(format!("{url} answers {status}: {detail}"))
    }
}
