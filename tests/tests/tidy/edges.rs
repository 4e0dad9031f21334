//! Who may depend on whom. Edges only go down; gateway and broker never see each other; what is
//! absent here is absent from the crate.

use std::collections::BTreeMap;

use crate::tree::{self, Source};

/// Each crate and the crates of ours that it may name.
const ALLOWED: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("storage", &["protocol"]),
    ("uplink", &["protocol"]),
    ("partition", &["protocol", "storage", "uplink"]),
    ("broker", &["partition", "protocol", "storage", "uplink"]),
    ("migration", &["broker", "partition", "protocol", "storage"]),
    ("gateway", &["protocol", "storage", "uplink"]),
    ("gateway-ws", &["gateway", "protocol"]),
    ("gateway-quic", &["gateway", "protocol"]),
    ("gateway-http", &["gateway", "protocol"]),
    (
        "server",
        &[
            "broker",
            "client",
            "gateway",
            "gateway-http",
            "gateway-quic",
            "gateway-ws",
            "migration",
            "protocol",
            "storage",
            "uplink",
        ],
    ),
    ("client", &["protocol"]),
    ("loadtest", &["client", "protocol"]),
    ("bench", &["client", "protocol"]),
    ("tests", &["client", "protocol", "uplink"]),
];

/// What a crate may name in its tests alone, beside the above.
const ALLOWED_IN_TESTS: &[(&str, &[&str])] = &[
    // The kernel's toy leader answers on an uplink's pipe.
    ("gateway-ws", &["uplink"]),
];

/// Dependencies that a crate must not have, because of what it promises to be.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    ("protocol", &["tokio", "quinn", "hyper", "axum"], "it is plain data"),
    ("partition", &["tokio", "getrandom", "rand", "rustix", "tracing", "metrics"], "it is sans-IO"),
    ("gateway", &["tokio-tungstenite", "quinn", "axum"], "it knows no transport"),
    ("client", &["chappe-uplink", "chappe-storage"], "it knows the protocol alone"),
];

/// A section of a manifest with its keys.
fn dependencies(manifest: &Source) -> BTreeMap<String, Vec<String>> {
    let mut sections: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in manifest.text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some(key) = line.split(['=', '.', ' ']).next()
            && !key.is_empty()
            && !key.starts_with('#')
        {
            sections.entry(section.clone()).or_default().push(key.to_owned());
        }
    }
    sections
}

fn manifests() -> Vec<Source> {
    let mut manifests = tree::files(&["toml"]);
    manifests.retain(|file| file.path.ends_with("/Cargo.toml"));
    manifests
}

fn allowed(table: &[(&str, &'static [&'static str])], folder: &str) -> &'static [&'static str] {
    table.iter().find(|(name, _)| *name == folder).map_or(&[], |(_, names)| names)
}

#[test]
fn crates_depend_only_downwards() {
    let mut wrong = Vec::new();
    for manifest in manifests() {
        let folder = manifest.crate_folder();
        if !ALLOWED.iter().any(|(name, _)| *name == folder) {
            wrong.push(format!("{} has no line in the table of edges", manifest.path));
        }
        for (section, keys) in dependencies(&manifest) {
            let in_tests = section.starts_with("dev-dependencies");
            if !in_tests && !section.ends_with("dependencies") {
                continue;
            }
            for target in keys.iter().filter_map(|key| key.strip_prefix("chappe-")) {
                let fine = allowed(ALLOWED, folder).contains(&target)
                    || in_tests && allowed(ALLOWED_IN_TESTS, folder).contains(&target)
                    || in_tests && target == folder;
                if !fine {
                    wrong.push(format!("{folder} must not depend on {target} ({section})"));
                }
            }
        }
    }
    tree::none("edges that the design does not have", wrong);
}

#[test]
fn every_crate_of_the_table_exists_and_is_named_after_its_folder() {
    let manifests = manifests();
    for (folder, _) in ALLOWED {
        let path = format!("{folder}/Cargo.toml");
        let manifest = manifests.iter().find(|manifest| manifest.path == path);
        let manifest = manifest.unwrap_or_else(|| panic!("{path} is missing"));
        let name = format!("name = \"chappe-{folder}\"");
        assert!(manifest.text.contains(&name), "{path} should say {name}");
    }
}

#[test]
fn crates_lack_what_they_promise_to_lack() {
    let mut wrong = Vec::new();
    for manifest in manifests() {
        for (folder, banned, reason) in FORBIDDEN {
            let keys = dependencies(&manifest).remove("dependencies").unwrap_or_default();
            let named = banned.iter().filter(|name| keys.iter().any(|key| key == *name));
            if manifest.crate_folder() == *folder {
                wrong.extend(named.map(|name| format!("{folder} depends on {name}, but {reason}")));
            }
        }
    }
    tree::none("dependencies that break a crate's promise", wrong);
}

/// What the code of a folder must not name, tests aside.
const UNSAID: &[(&str, &[&str], &str)] = &[
    (
        "gateway",
        &["chappe_storage::log", "chappe_storage::store", "chappe_storage::blobs"],
        "the gateway cannot reach the log or the store",
    ),
    ("gateway", &["TcpListener", "UdpSocket"], "the kernel accepts no connection"),
    (
        "broker",
        &["log::segment", "store::lsm", "presence::memory", "blobs::files", "ClientFrame"],
        "the broker names no backend and sees no client frame",
    ),
    (
        "migration",
        &["log::segment", "log::kafka", "store::lsm", "store::scylla"],
        "what is moved is moved between any backends",
    ),
    (
        "partition",
        &["std::time::Instant", "Instant::now", "SystemTime", "std::thread", "std::fs", "tokio::"],
        "the core has no clock, thread or file",
    ),
    ("protocol", &["std::fs", "std::net", "std::time", "std::thread"], "the contract does no I/O"),
];

#[test]
fn code_does_not_name_what_its_crate_must_not_know() {
    let mut wrong = Vec::new();
    for source in tree::files(&["rs"]) {
        if source.is_test() || !source.path.contains("/src/") {
            continue;
        }
        for (folder, names, reason) in UNSAID {
            if source.crate_folder() != *folder {
                continue;
            }
            for (index, line) in source.without_tests().lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                if let Some(name) = names.iter().find(|name| code.contains(**name)) {
                    wrong.push(format!("{}:{}: {name}: {reason}", source.path, index + 1));
                }
            }
        }
    }
    tree::none("names that a crate must not know", wrong);
}
