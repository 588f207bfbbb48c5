//! Routes, bodies and status codes.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::lab::Lab;
use crate::view::{ApplyEvent, ApplyRequest, ErrorView, ExplainRequest};

/// Largest body of a request in bytes.
const MAX_BODY: usize = 16 << 20;

type Shared = State<Arc<Lab>>;

/// Everything the daemon answers.
pub fn routes(lab: Arc<Lab>) -> Router {
    Router::new()
        .route("/v1/apply", post(apply))
        .route("/v1/plan", post(plan))
        .route("/v1/status", get(|State(lab): Shared| answer(move || Ok(lab.status()))))
        .route("/v1/resources", get(|State(lab): Shared| answer(move || Ok(lab.resources()))))
        .route("/v1/document", get(|State(lab): Shared| answer(move || lab.document())))
        .route("/v1/counters", get(|State(lab): Shared| answer(move || lab.counters())))
        .route("/v1/connections", get(|State(lab): Shared| answer(move || lab.connections())))
        .route("/v1/nat", get(|State(lab): Shared| answer(move || lab.leases())))
        .route("/v1/explain", post(explain))
        .route("/v1/down", post(down))
        .fallback(nothing_here)
        .method_not_allowed_fallback(other_method)
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .with_state(lab)
}

async fn apply(State(lab): Shared, body: Bytes) -> Response {
    let request: ApplyRequest = match parse(&body) {
        Ok(request) => request,
        Err(error) => return refuse(&error),
    };
    let (sender, receiver) = mpsc::unbounded_channel::<ApplyEvent>();
    // It goes on when nobody listens any more: half an apply helps nobody.
    tokio::task::spawn_blocking(move || {
        lab.apply(&request, &mut |event| drop(sender.send(event)));
    });
    let lines = futures_util::stream::unfold(receiver, async |mut receiver| {
        let event = receiver.recv().await?;
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        Some((Ok::<_, Infallible>(line), receiver))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

async fn plan(State(lab): Shared, body: Bytes) -> Response {
    match parse::<ApplyRequest>(&body) {
        Ok(request) => answer(move || lab.plan(&request)).await,
        Err(error) => refuse(&error),
    }
}

async fn explain(State(lab): Shared, body: Bytes) -> Response {
    match parse::<ExplainRequest>(&body) {
        Ok(request) => answer(move || lab.explain(&request)).await,
        Err(error) => refuse(&error),
    }
}

async fn down(State(lab): Shared) -> Response {
    let done = lab.clone();
    let response = answer(move || done.down()).await;
    lab.end();
    response
}

async fn nothing_here(method: axum::http::Method, uri: axum::http::Uri) -> Response {
    refuse(&ErrorView {
        kind: "not_found".into(),
        message: format!("there is no {method} {}", uri.path()),
        positions: Vec::new(),
    })
}

/// Axum adds which methods there are, as `Allow`.
async fn other_method(method: axum::http::Method, uri: axum::http::Uri) -> Response {
    let error = ErrorView {
        kind: "invalid_request".into(),
        message: format!("{} does not take {method}: the header `Allow` says what it takes", uri.path()),
        positions: Vec::new(),
    };
    (StatusCode::METHOD_NOT_ALLOWED, axum::Json(error)).into_response()
}

/// Does something that blocks, and sends its result.
async fn answer<T: Serialize + Send + 'static>(
    work: impl FnOnce() -> Result<T, ErrorView> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => axum::Json(value).into_response(),
        Ok(Err(error)) => refuse(&error),
        Err(panic) => refuse(&ErrorView {
            kind: "internal".into(),
            message: format!("a bug in the daemon: {panic}"),
            positions: Vec::new(),
        }),
    }
}

fn refuse(error: &ErrorView) -> Response {
    let status = match error.kind.as_str() {
        "invalid_config" | "invalid_request" => StatusCode::BAD_REQUEST,
        "not_found" => StatusCode::NOT_FOUND,
        "dataplane" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, axum::Json(error)).into_response()
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ErrorView> {
    serde_json::from_slice(body).map_err(|error| ErrorView {
        kind: "invalid_request".into(),
        message: format!("the body of the request is not what it should be: {error}"),
        positions: Vec::new(),
    })
}
