//! The API document and its viewer: built once per worker, served from memory; a file the viewer does not have is a problem document.

use std::sync::Arc;

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use utoipa::OpenApi;
use utoipa_swagger_ui::Config;

use super::openapi::ApiDocument;
use super::reply;
use crate::domain::query::QueryError;

/// Where the document is served.
pub const OPENAPI_PATH: &str = "/api/v1/openapi.json";
/// Where its viewer is.
pub const VIEWER_PATH: &str = "/api/docs";

/// The document as text, and how the viewer finds it.
pub struct Documents {
    openapi: String,
    viewer: Arc<Config<'static>>,
}

impl Documents {
    /// Generates the document from the code.
    pub fn build() -> Self {
        // The document is made of texts and maps with text keys: it always serialises.
        let openapi = serde_json::to_string(&ApiDocument::openapi()).unwrap_or_default();
        Self { openapi, viewer: Arc::new(Config::from(OPENAPI_PATH)) }
    }
}

/// This document.
#[utoipa::path(
    get, path = "/api/v1/openapi.json", tag = "health", security(()),
    responses((status = 200, description = "The OpenAPI document of this API", content_type = "application/json", body = String))
)]
pub async fn openapi_json(documents: Data<Documents>) -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(documents.openapi.clone())
}

/// Mounts the viewer at [`VIEWER_PATH`].
pub fn mount_viewer(service: &mut web::ServiceConfig) {
    let to_folder =
        || async { HttpResponse::PermanentRedirect().insert_header((LOCATION, "/api/docs/")).finish() };
    service
        .service(
            web::resource(VIEWER_PATH)
                .route(web::get().to(to_folder))
                .default_service(web::to(reply::only_get)),
        )
        .service(
            web::resource("/api/docs/{file:.*}")
                .route(web::get().to(viewer_file))
                .default_service(web::to(reply::only_get)),
        );
}

async fn viewer_file(request: HttpRequest, documents: Data<Documents>, file: Path<String>) -> HttpResponse {
    match utoipa_swagger_ui::serve(&file, Arc::clone(&documents.viewer)) {
        Ok(Some(found)) => {
            let mut response = HttpResponse::Ok();
            if found.gzpipped {
                response.insert_header((CONTENT_ENCODING, "gzip"));
            }
            response.insert_header((CONTENT_TYPE, found.content_type)).body(found.bytes.into_owned())
        }
        Ok(None) => reply::no_such_path(request).await,
        Err(failure) => {
            reply::error(&QueryError::Internal(format!("the viewer's file: {failure}")), &request)
        }
    }
}
