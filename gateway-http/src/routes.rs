//! The routes of the REST API: one table, so that documents, router and tests agree.

/// A command's route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The method.
    pub verb: Verb,
    /// The path, its captures in braces.
    pub path: &'static str,
    /// The wire name of the command that it carries out.
    pub command: &'static str,
    /// The command's fields that the path holds, in the order of its captures.
    pub captures: &'static [Field],
    /// The command's fields that the query may hold.
    pub query: &'static [Field],
    /// The field of the query that tells this route from another one with the same path.
    pub selected_by: Option<&'static str>,
    /// Where the rest of the command's fields come from.
    pub body: Body,
    /// The status of success.
    pub success: u16,
}

/// A method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `GET`, and `HEAD` with it.
    Get,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
}

/// Whether a request has a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// It has none; one that comes all the same is not read.
    None,
    /// A JSON object with fields of the command. No body is an empty object.
    Object,
}

/// A field of a command that stands in a path or a query.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name, in the command and in the path or query.
    pub name: &'static str,
    /// How its text becomes JSON.
    pub kind: Kind,
}

/// How a text becomes a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As a string.
    Text,
    /// As a list of strings, which commas separate.
    TextList,
    /// As a number, without sign or fraction.
    Number,
    /// As the id of a `ChannelRef` called `channel`.
    ChannelById,
    /// As the name of a `ChannelRef` called `channel`.
    ChannelByName,
}

/// Every command that has a route.
pub const ROUTES: &[Route] = &[
    get("/v1/channels", "get_channel").query(&[CHANNEL_BY_NAME]).selected_by("name"),
    get("/v1/channels", "list_channels").query(&[text("after"), LIMIT]),
    post("/v1/channels", "create_channel").success(201),
    get(CHANNEL_PATH, "get_channel").captures(&[CHANNEL_BY_ID]),
    patch(CHANNEL_PATH, "update_channel").captures(&[CHANNEL]),
    delete(CHANNEL_PATH, "delete_channel").captures(&[CHANNEL]),
    put("/v1/channels/{channel}/archive", "archive_channel").captures(&[CHANNEL]).no_body(),
    delete("/v1/channels/{channel}/archive", "unarchive_channel").captures(&[CHANNEL]),
    get("/v1/channels/{channel}/members", "list_members")
        .captures(&[CHANNEL])
        .query(&[text("after"), LIMIT]),
    put("/v1/channels/{channel}/members/@me", "join").captures(&[CHANNEL]).no_body(),
    delete("/v1/channels/{channel}/members/@me", "leave").captures(&[CHANNEL]),
    put(MEMBER_PATH, "add_member").captures(&[CHANNEL, USER]),
    patch(MEMBER_PATH, "set_role").captures(&[CHANNEL, USER]),
    delete(MEMBER_PATH, "remove_member").captures(&[CHANNEL, USER]),
    get("/v1/channels/{channel}/messages", "history").captures(&[CHANNEL]).query(&[
        number("before"),
        number("after"),
        number("around"),
        LIMIT,
    ]),
    post("/v1/channels/{channel}/messages", "publish").captures(&[CHANNEL]).success(201),
    patch(MESSAGE_PATH, "edit").captures(&[CHANNEL, SEQ]),
    delete(MESSAGE_PATH, "delete").captures(&[CHANNEL, SEQ]),
    put(REACTION_PATH, "react").captures(&[CHANNEL, SEQ, text("emoji")]).no_body(),
    delete(REACTION_PATH, "unreact").captures(&[CHANNEL, SEQ, text("emoji")]),
    put("/v1/channels/{channel}/read", "mark_read").captures(&[CHANNEL]),
    post("/v1/channels/{channel}/typing", "typing").captures(&[CHANNEL]).no_body().success(204),
    post("/v1/channels/{channel}/signals", "signal").captures(&[CHANNEL]).success(204),
    get("/v1/presence", "presence").query(&[USERS]),
];

/// Every command that has none, and why.
pub const WITHOUT_ROUTE: &[(&str, &str)] = &[
    ("hello", "a request signs in by its Authorization header"),
    ("refresh", "the next request brings the new token"),
    ("ping", "a request that is answered says as much"),
    ("pong", "answers a ping, and a request gets none"),
    ("subscribe", "GET /v1/events subscribes and streams the events"),
    ("unsubscribe", "ends with the stream of GET /v1/events"),
];

/// Streams events.
pub const EVENTS_PATH: &str = "/v1/events";
/// Upgrades to a WebSocket.
pub const WEBSOCKET_PATH: &str = "/v1/ws";
/// Publishes many messages at once.
pub const BATCH_PATH: &str = "/v1/messages/batch";
/// Closes a user's sessions.
pub const SESSIONS_PATH: &str = "/v1/users/{user}/sessions";
/// The page to try it in.
pub const PAGE_PATH: &str = "/";

const CHANNEL_PATH: &str = "/v1/channels/{channel}";
const MEMBER_PATH: &str = "/v1/channels/{channel}/members/{user}";
const MESSAGE_PATH: &str = "/v1/channels/{channel}/messages/{seq}";
const REACTION_PATH: &str = "/v1/channels/{channel}/messages/{seq}/reactions/{emoji}/@me";

const CHANNEL: Field = text("channel");
const USER: Field = text("user");
const SEQ: Field = number("seq");
const USERS: Field = Field { name: "users", kind: Kind::TextList };
const LIMIT: Field = number("limit");
const CHANNEL_BY_ID: Field = Field { name: "channel", kind: Kind::ChannelById };
const CHANNEL_BY_NAME: Field = Field { name: "name", kind: Kind::ChannelByName };

impl Route {
    const fn captures(self, captures: &'static [Field]) -> Self {
        Self { captures, ..self }
    }

    const fn query(self, query: &'static [Field]) -> Self {
        Self { query, ..self }
    }

    const fn selected_by(self, field: &'static str) -> Self {
        Self { selected_by: Some(field), ..self }
    }

    const fn no_body(self) -> Self {
        Self { body: Body::None, ..self }
    }

    const fn success(self, success: u16) -> Self {
        Self { success, ..self }
    }
}

const fn route(verb: Verb, path: &'static str, command: &'static str, body: Body) -> Route {
    Route { verb, path, command, captures: &[], query: &[], selected_by: None, body, success: 200 }
}

const fn get(path: &'static str, command: &'static str) -> Route {
    route(Verb::Get, path, command, Body::None)
}

const fn post(path: &'static str, command: &'static str) -> Route {
    route(Verb::Post, path, command, Body::Object)
}

const fn put(path: &'static str, command: &'static str) -> Route {
    route(Verb::Put, path, command, Body::Object)
}

const fn patch(path: &'static str, command: &'static str) -> Route {
    route(Verb::Patch, path, command, Body::Object)
}

const fn delete(path: &'static str, command: &'static str) -> Route {
    route(Verb::Delete, path, command, Body::None)
}

const fn text(name: &'static str) -> Field {
    Field { name, kind: Kind::Text }
}

const fn number(name: &'static str) -> Field {
    Field { name, kind: Kind::Number }
}

#[cfg(test)]
mod tests {
    use chappe_protocol::Command;

    use super::*;

    #[test]
    fn every_command_has_a_route_or_a_reason_for_none() {
        for name in Command::NAMES {
            let routed = ROUTES.iter().any(|route| route.command == *name);
            let excused = WITHOUT_ROUTE.iter().any(|(command, _)| command == name);
            assert!(routed != excused, "{name}: routed {routed}, excused {excused}");
        }
        for route in ROUTES {
            assert!(Command::NAMES.contains(&route.command), "{} is no command", route.command);
        }
        for (command, _) in WITHOUT_ROUTE {
            assert!(Command::NAMES.contains(command), "{command} is no command");
        }
    }

    #[test]
    fn a_route_names_each_capture_of_its_path() {
        for route in ROUTES {
            let captures: Vec<_> = route
                .path
                .split('/')
                .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
                .collect();
            let fields: Vec<_> = route.captures.iter().map(|field| field.name).collect();
            assert_eq!(captures, fields, "{}", route.path);
        }
    }

    #[test]
    fn routes_of_one_path_and_method_are_told_apart_by_their_query() {
        for (at, route) in ROUTES.iter().enumerate() {
            let clash = ROUTES[at + 1..]
                .iter()
                .any(|other| (other.verb, other.path) == (route.verb, route.path));
            assert!(!clash || route.selected_by.is_some(), "{} comes twice", route.path);
        }
    }
}
