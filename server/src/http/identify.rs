//! Before every request: who sent it. Whatever comes after finds the answer among the request's extensions, as
//! `Arc<Principal>`.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::App;

pub(super) async fn identify(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let principal = app.trust.identify(request.headers());
    request.extensions_mut().insert(principal);
    next.run(request).await
}
