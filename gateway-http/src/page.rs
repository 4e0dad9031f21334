//! The page to try Chappe in: one file with its script and style in it, allowed by their hashes
//! and by nothing else.

use std::sync::{Arc, LazyLock};

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use crate::{problem::Problem, rest::App};

/// Handles the route.
pub(crate) async fn page<K>(_: Arc<App<K>>, request: Request) -> Result<Response, Problem> {
    let cached = request.headers().get(header::IF_NONE_MATCH).is_some_and(|tag| tag == PAGE.tag);
    let mut response = if cached {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Response::new(Body::from(HTML))
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, PAGE.policy.clone());
    response.headers_mut().insert(header::ETAG, PAGE.tag.clone());
    Ok(response)
}

const HTML: &str = include_str!("page.html");

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (header::CACHE_CONTROL, "no-cache"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

struct Page {
    policy: HeaderValue,
    tag: HeaderValue,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let read = || -> Option<Page> {
        let script = digest(between(HTML, "<script>", "</script>")?);
        let style = digest(between(HTML, "<style>", "</style>")?);
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; \
             connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'; require-trusted-types-for 'script'"
        );
        let tag = format!("\"{}\"", digest(HTML));
        Some(Page { policy: policy.parse().ok()?, tag: tag.parse().ok()? })
    };
    read().expect("the page has one script and one style")
});

fn between<'a>(html: &'a str, start: &str, end: &str) -> Option<&'a str> {
    Some(html.split_once(start)?.1.split_once(end)?.0)
}

fn digest(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_script_and_no_handler_in_its_markup() {
        assert_eq!(HTML.matches("<script").count(), 1);
        assert_eq!(HTML.matches("<style").count(), 1);
        let markup = HTML.split_once("<script>").unwrap().0;
        for handler in [" onclick", " onload", " onerror", " oninput", " onsubmit", "javascript:"] {
            assert!(!markup.contains(handler), "{handler}");
        }
        assert!(!markup.contains("style=\""), "the policy allows no style in the markup");
    }

    #[test]
    fn the_script_makes_text_nodes_and_never_markup() {
        let script = between(HTML, "<script>", "</script>").unwrap();
        for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!script.contains(sink), "{sink}");
        }
    }
}
