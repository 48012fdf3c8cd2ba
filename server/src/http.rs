//! The route table, and nothing else: each endpoint has its file, and each file its twin among the wire types.

mod acquire;
mod actions;
mod admit;
mod audit;
mod blobs;
mod body;
mod dashboard;
mod document;
#[cfg(feature = "failpoints")]
mod falsify;
mod framing;
mod identify;
mod leases;
mod lookup;
mod oversee;
mod packing;
mod path;
mod probes;
mod problem;
mod profiles;
mod range;
mod revocations;
mod token;

use std::sync::Arc;

use axum::{Router, middleware};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::oversee::Overseer;
use crate::cache::Cache;
use crate::history::History;
use crate::metrics::Metrics;
use crate::traces::Traces;
use crate::trust::Trust;

pub use admit::Gate;
pub use packing::Packers;

/// What every handler may use.
#[derive(Debug, Clone)]
pub struct App {
    /// The rules.
    pub cache: Arc<Cache>,
    /// Who may do what.
    pub trust: Arc<Trust>,
    /// Cancelled when the server goes down: what only waits must end.
    pub stop: CancellationToken,
    /// What is counted beside the cache.
    pub metrics: Arc<Metrics>,
    /// Who may ask for how much.
    pub gate: Gate,
    /// The counts over time.
    pub history: Arc<History>,
    /// Where spans of requests go, if anybody wants them.
    pub traces: Option<Arc<Traces>>,
    /// Who packs blobs for slow links.
    pub packers: Packers,
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(document::head())
        .routes(routes!(acquire::acquire))
        .routes(routes!(leases::renew, leases::release))
        .routes(routes!(actions::read, actions::publish))
        .routes(routes!(lookup::lookup))
        .routes(routes!(blobs::get, blobs::head, blobs::put))
        .routes(routes!(profiles::read, profiles::push))
        .routes(routes!(revocations::revocations))
        .routes(routes!(token::who_am_i, token::exchange))
        .routes(routes!(dashboard::index))
        .routes(routes!(dashboard::file))
        .routes(routes!(dashboard::dashboard))
        .routes(routes!(probes::healthz))
        .routes(routes!(probes::readyz))
        .routes(routes!(probes::metrics))
        .routes(routes!(probes::openapi))
}

/// The server's routes, and every answer to what is none of them.
pub fn router(app: App) -> Router {
    Routes::default().over(app)
}

/// The route table and its document, which are the same over whatever they serve.
#[derive(Debug, Clone)]
pub struct Routes {
    router: Router<App>,
    document: Bytes,
}

impl Default for Routes {
    fn default() -> Self {
        let (router, openapi) = routes().split_for_parts();
        let document = Bytes::from(document::complete(openapi).to_json().unwrap_or_default());
        Self { router, document }
    }
}

impl Routes {
    /// [`router`] again, made of these.
    pub fn over(&self, app: App) -> Router {
        finished(self.router.clone(), self.document.clone(), app)
    }
}

fn finished(router: Router<App>, document: Bytes, app: App) -> Router {
    #[cfg(feature = "failpoints")]
    let router = router.layer(middleware::from_fn(falsify::falsify));
    let overseer =
        Overseer::new(Arc::clone(&app.metrics), app.traces.clone(), app.cache.rooms.entropy.as_ref());
    router
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(axum::Extension(probes::Document(document)))
        .layer(middleware::from_fn_with_state(app.gate.clone(), admit::admit))
        .layer(middleware::from_fn(audit::audit))
        .layer(middleware::from_fn_with_state(app.clone(), identify::identify))
        .layer(middleware::from_fn_with_state(overseer, oversee::oversee))
        .with_state(app)
}

/// The OpenAPI document that the server serves.
pub fn openapi() -> OpenApi {
    document::complete(routes().split_for_parts().1)
}
