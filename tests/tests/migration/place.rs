//! Where a server keeps everything: a data directory, or servers that others share.

use std::{fs, net::SocketAddr, path::Path, path::PathBuf, process::Stdio};

use chappe_tests::{Server, chappe, services};
use tempfile::TempDir;
use tokio::process::Command;

/// A log and a store of their own.
pub(crate) struct Place {
    folder: TempDir,
    settings: Vec<(String, String)>,
    /// Its topic, in a cluster.
    topic: Option<services::Topic>,
}

/// What a command said and how it ended.
pub(crate) struct Said {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    /// What it said; it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.status, Some(0), "{}\n{}", self.out, self.err);
        self.out
    }

    /// What it said; it wants to be asked otherwise.
    #[track_caller]
    pub(crate) fn misused(self) -> String {
        assert_eq!(self.status, Some(2), "{}\n{}", self.out, self.err);
        self.out + &self.err
    }

    /// What it said; it refused.
    #[track_caller]
    pub(crate) fn refused(self) -> String {
        assert_eq!(self.status, Some(1), "{}\n{}", self.out, self.err);
        self.out + &self.err
    }
}

impl Place {
    /// In a data directory.
    pub(crate) fn embedded(partitions: u32) -> Self {
        let folder = tempfile::Builder::new().prefix("chappe-place-").tempdir().unwrap();
        let settings = vec![("log.partitions".to_owned(), partitions.to_string())];
        Self { folder, settings, topic: None }
    }

    /// On the real servers, in a topic and a keyspace that nobody else uses.
    pub(crate) fn clustered(partitions: u32) -> Self {
        let place = Self::embedded(partitions);
        let name = services::Topic::fresh("moved");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let uplink = std::net::TcpListener::bind(any).unwrap().local_addr().unwrap();
        let text = |text: &str| format!("'{text}'");
        let list = |text: &str| {
            format!("[{}]", text.split(',').map(text_of).collect::<Vec<_>>().join(", "))
        };
        let roles = "['broker', 'gateway-ws', 'gateway-quic', 'gateway-http']".to_owned();
        let settings = [
            ("roles", roles),
            ("listen.uplink", text(&uplink.to_string())),
            ("uplink.brokers", format!("['{uplink}']")),
            ("log.kind", text("kafka")),
            ("log.brokers", list(&services::given("KAFKA"))),
            ("log.topic", text(&name)),
            ("log.group", text(&name)),
            ("store.kind", text("scylla")),
            ("store.nodes", list(&services::given("CQL"))),
            ("store.keyspace", text(&name.replace('-', "_"))),
            ("store.user", text(&services::given("CQL_USER"))),
            ("store.password", text(&services::given("CQL_PASSWORD"))),
        ];
        let mut all = place.settings.clone();
        all.extend(settings.map(|(key, value)| (key.to_owned(), value)));
        Self { settings: all, topic: Some(name), ..place }
    }

    /// Its topic, in a cluster.
    pub(crate) fn topic(&self) -> &str {
        self.topic.as_deref().unwrap_or_default()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What an import needs to find.
    pub(crate) async fn prepare(&self) {
        if self.topic.is_some() {
            self.chappe(&["schema", "apply", "--replicas", "1"], &[]).await.ok();
        }
    }

    /// Makes it from nothing, and starts a server.
    pub(crate) async fn begin(&self) -> Server {
        if self.topic.is_some() {
            self.prepare().await;
            self.chappe(&["log", "create"], &[]).await.ok();
        }
        self.server(None).await
    }

    /// A server on it, for the users of another one.
    pub(crate) async fn server(&self, other: Option<&Server>) -> Server {
        let mut builder = Server::builder().set("gateway.drain", "'100ms'").on(self.data());
        for (key, value) in &self.settings {
            builder = builder.set(key, value);
        }
        if let Some(other) = other {
            builder = builder.with_users_of(other);
        }
        builder.start().await
    }

    /// Runs a tool to its end.
    pub(crate) async fn chappe(&self, args: &[&str], paths: &[&Path]) -> Said {
        let ended = self.command(args, paths).output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { status: ended.status.code(), out: text(ended.stdout), err: text(ended.stderr) }
    }

    /// A tool that is to be run on it.
    pub(crate) fn command(&self, args: &[&str], paths: &[&Path]) -> Command {
        let config = self.folder.path().join("chappe.toml");
        let lines = self.settings.iter().map(|(key, value)| format!("{key} = {value}\n"));
        let data = format!("data = '{}'\n", self.data().display());
        fs::write(&config, data + &lines.collect::<String>()).unwrap();
        let mut command = Command::new(chappe());
        command.args(args).args(paths).stdin(Stdio::null()).kill_on_drop(true);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHAPPE_")) {
            command.env_remove(name);
        }
        command.env("CHAPPE_CONFIG", config);
        command
    }
}

fn text_of(text: &str) -> String {
    format!("'{text}'")
}
