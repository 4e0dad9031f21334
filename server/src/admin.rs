//! The admin listener: liveness, readiness, metrics and a picture of the cluster. Not for the
//! internet.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use chappe_storage::blobs::Blobs;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{
    cluster::View,
    config::Config,
    dependencies::{self, Tried},
};

/// How often histograms are folded; without it they grow between scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Whether the server takes traffic.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub(crate) fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What is tried when somebody asks: one try at a time, as each writes a little.
pub(crate) struct Dependencies {
    config: Config,
    blobs: Option<Arc<dyn Blobs>>,
    place: Arc<Semaphore>,
}

impl Dependencies {
    pub(crate) fn new(config: Config, blobs: Option<Arc<dyn Blobs>>) -> Self {
        Self { config, blobs, place: Arc::new(Semaphore::new(1)) }
    }
}

/// Serves until it is dropped.
pub(crate) async fn serve(
    listener: TcpListener,
    metrics: PrometheusHandle,
    ready: Readiness,
    view: View,
    dependencies: Dependencies,
) -> std::io::Result<()> {
    let upkeep = metrics.clone();
    let folding = async move {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            upkeep.run_upkeep();
        }
    };
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz).with_state(ready))
        .route("/cluster", get(cluster).with_state(view))
        .route("/dependencies", get(try_dependencies).with_state(Arc::new(dependencies)))
        .route("/metrics", get(render).with_state(metrics));
    tokio::select! {
        served = axum::serve(listener, router) => served,
        () = folding => Ok(()),
    }
}

async fn readyz(State(ready): State<Readiness>) -> impl IntoResponse {
    if ready.get() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting or draining\n")
    }
}

async fn render(State(metrics): State<PrometheusHandle>) -> impl IntoResponse {
    ([("content-type", "text/plain; version=0.0.4")], metrics.render())
}

async fn try_dependencies(State(of): State<Arc<Dependencies>>) -> Response {
    let Ok(place) = Arc::clone(&of.place).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "a try is under way\n").into_response();
    };
    // Goes on when whoever asked hangs up: the place is not free before it is over.
    let trying = tokio::spawn(async move {
        let _place = place;
        dependencies::try_all(&of.config, of.blobs.clone()).await
    });
    match trying.await {
        Ok(tried) => Json::<Vec<Tried>>(tried).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn cluster(State(view): State<View>) -> Response {
    match view.report().await {
        Ok(report) => Json(report).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
