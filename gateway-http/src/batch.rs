//! `POST /v1/messages/batch`: many publishes in one request, each with its own result.
//!
//! It is no transaction. Items of one channel take effect in their order; those of different
//! channels go at the same time.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::Request, response::Response};
use chappe_gateway::frontend::{Call, Kernel};
use chappe_protocol::{
    ChannelId, Command, ErrorCode, Nonce, WireError, command::Publish, reply::Reply,
};
use futures_util::future::join_all;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    problem::Problem,
    request,
    rest::{self, App},
};

/// Most messages of a batch.
pub const BATCH_ITEMS_MAX: usize = 100;

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

/// What stands in an item beside the fields of `publish`.
#[derive(Deserialize)]
struct Beside {
    #[serde(default)]
    nonce: Option<Nonce>,
    #[serde(default)]
    age_ms: u64,
}

/// An item that could be read.
struct Item {
    place: usize,
    publish: Publish,
    beside: Beside,
}

/// The result of one item, in the place that the item had.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Ok(Reply),
    Error(WireError),
}

#[derive(Serialize)]
struct Outcomes {
    results: Vec<Outcome>,
}

/// Handles the route.
pub(crate) async fn publish<K: Kernel>(
    app: Arc<App<K>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let token = request::bearer(&parts.headers)?;
    let peer = request::client(&parts).ip();
    request::check_body_headers(&parts.headers)?;
    let body = request::read_body(body, app.config.body_timeout).await?;
    request::object_fields(&body)?; // for its refusals
    let batch: Batch<'_> = serde_json::from_slice(&body).map_err(|_| {
        Problem::with_message(ErrorCode::Invalid, "the body has a list called messages")
    })?;
    if batch.messages.is_empty() || batch.messages.len() > BATCH_ITEMS_MAX {
        return Err(Problem::with_message(ErrorCode::Invalid, "a batch has 1 to 100 messages"));
    }

    let mut results: Vec<Option<Outcome>> = batch.messages.iter().map(|_| None).collect();
    let mut channels: BTreeMap<ChannelId, Vec<Item>> = BTreeMap::new();
    for (place, json) in batch.messages.iter().enumerate() {
        match read_item(place, json) {
            Ok(item) => channels.entry(item.publish.channel).or_default().push(item),
            Err(problem) => results[place] = Some(Outcome::Error(problem.into_error())),
        }
    }
    let channels = channels.into_values().map(|items| async {
        let mut outcomes = Vec::with_capacity(items.len());
        for Item { place, publish, beside: Beside { nonce, age_ms } } in items {
            let command = Command::Publish(publish);
            let call = Call { token: token.clone(), peer, nonce, age_ms, command };
            let outcome = match app.kernel.call(call).await {
                Ok(reply) => Outcome::Ok(reply),
                Err(error) => Outcome::Error(error),
            };
            outcomes.push((place, outcome));
        }
        outcomes
    });
    for (place, outcome) in join_all(channels).await.into_iter().flatten() {
        results[place] = Some(outcome);
    }
    let results = results.into_iter().map(|result| result.expect("every item has a result"));
    Ok(rest::json(StatusCode::OK, &Outcomes { results: results.collect() }))
}

fn read_item(place: usize, json: &RawValue) -> Result<Item, Problem> {
    let fields = request::object_fields(json.get().as_bytes())?;
    let frame = request::decode_fields("publish", fields)?;
    let Command::Publish(publish) = frame.command else {
        unreachable!("a frame is read back as the command that was asked for");
    };
    let beside = serde_json::from_str(json.get())
        .map_err(|_| Problem::with_message(ErrorCode::NonceInvalid, "nonce or age_ms is wrong"))?;
    Ok(Item { place, publish, beside })
}
