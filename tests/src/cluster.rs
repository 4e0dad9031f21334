//! A cluster of our own on real servers: brokers and gateways, each a process, on a topic and a
//! keyspace that nobody else uses.

use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{
    binary::chappe,
    client::{Client, Transport},
    http,
    server::Run,
    services, token,
};

const BROKERS: usize = 3;
/// Of its log.
pub const PARTITIONS: u32 = 12;
/// Kafka, the store and a group of brokers answer within this on a busy machine.
const READY: Duration = Duration::from_secs(90);
/// A process that does not answer within this is taken to be unable to.
const SILENT: Duration = Duration::from_secs(2);

/// What runs in a process of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Leads partitions.
    Broker,
    /// Holds WebSocket connections.
    Ws,
    /// Holds QUIC connections.
    Quic,
}

/// A process of the cluster.
pub struct Node {
    /// Its name in logs.
    pub name: String,
    part: Part,
    /// Where clients connect, or gateways.
    pub listen: SocketAddr,
    admin: SocketAddr,
    child: Option<Child>,
    /// Counts of its earlier lives, which died with them.
    past: Vec<(String, f64)>,
    environment: Vec<(String, String)>,
}

/// A cluster that is to be started.
#[derive(Default)]
pub struct Plan {
    kafka_of: Vec<(usize, String)>,
    settings: Vec<String>,
}

/// A running cluster. Its processes are killed when it is dropped.
pub struct Cluster {
    folder: TempDir,
    /// Three brokers, two WebSocket gateways, one QUIC gateway.
    pub nodes: Vec<Node>,
    topic: services::Topic,
    settings: Vec<String>,
}

impl Plan {
    /// A node finds Kafka at these addresses, as those of a relay.
    #[must_use]
    pub fn kafka_of(mut self, node: usize, addresses: &str) -> Self {
        self.kafka_of.push((node, addresses.to_owned()));
        self
    }

    /// A line of every process's configuration, with a dotted key.
    #[must_use]
    pub fn set(mut self, line: &str) -> Self {
        self.settings.push(line.to_owned());
        self
    }

    /// Makes topic and tables, and starts all processes.
    pub async fn start(self) -> Cluster {
        let folder = tempfile::Builder::new().prefix("chappe-cluster-").tempdir().unwrap();
        let mut ports = free_ports(2 * (BROKERS + 3)).into_iter();
        let mut nodes = Vec::new();
        let parts = [Part::Broker; BROKERS].into_iter().chain([Part::Ws, Part::Ws, Part::Quic]);
        for (index, part) in parts.enumerate() {
            let kafka = self.kafka_of.iter().filter(|(node, _)| *node == index);
            let kafka = kafka.map(|(_, at)| ("CHAPPE_LOG__BROKERS".to_owned(), at.clone()));
            nodes.push(Node {
                name: format!("{part:?}-{index}").to_lowercase(),
                part,
                listen: ports.next().unwrap(),
                admin: ports.next().unwrap(),
                child: None,
                past: Vec::new(),
                environment: kafka.collect(),
            });
        }
        let (topic, settings) = (services::Topic::fresh("cluster"), self.settings);
        let mut cluster = Cluster { folder, nodes, topic, settings };
        cluster.write_config();
        cluster.tool(&["schema", "apply", "--replicas", "1"]).await;
        cluster.tool(&["log", "create"]).await;
        cluster.tool(&["log", "check"]).await;
        for index in 0..cluster.nodes.len() {
            cluster.spawn(index);
        }
        for index in 0..cluster.nodes.len() {
            cluster.ready(index).await;
        }
        cluster
    }
}

impl Cluster {
    /// A cluster that is to be started.
    pub fn plan() -> Plan {
        Plan::default()
    }

    /// The file of the secret that signs tokens.
    pub fn secret(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    /// A folder for what a test writes.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The topic of its log.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The nodes of a part.
    pub fn of(&self, part: Part) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].part == part).collect()
    }

    /// The digest of the QUIC gateway's certificate.
    pub fn fingerprint(&self) -> String {
        let node = &self.nodes[self.of(Part::Quic)[0]];
        let run = fs::read(self.folder.path().join(&node.name).join("run.json")).unwrap();
        let run: serde_json::Value = serde_json::from_slice(&run).unwrap();
        run["fingerprint"].as_str().unwrap().to_owned()
    }

    /// Where a gateway listens, as clients need to know it.
    pub fn address(&self, index: usize) -> Run {
        let Node { listen, admin, .. } = self.nodes[index];
        Run { tcp: listen, quic: listen, admin, fingerprint: self.fingerprint(), pid: 0 }
    }

    /// A client that is signed in at a WebSocket gateway.
    pub async fn sign_in(&self, gateway: &Run, user: &str) -> Client {
        let mut client = Client::connect_to(gateway, Transport::WsJson).await;
        client.sign_in(&token::mint(self.folder.path(), user), None).await;
        client
    }

    /// Starts a process that is not running.
    pub fn spawn(&mut self, index: usize) {
        let (config, folder) = (self.config(), self.folder.path().to_owned());
        let node = &mut self.nodes[index];
        assert!(node.child.is_none(), "{} runs already", node.name);
        let log = folder.join(format!("{}.log", node.name));
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(chappe());
        command.arg("serve").arg("--config").arg(config);
        command.arg("--data").arg(folder.join(&node.name));
        command.arg("--admin-listen").arg(node.admin.to_string());
        let (role, listen) = match node.part {
            Part::Broker => ("broker", "--uplink-listen"),
            Part::Ws => ("gateway-ws", "--listen"),
            Part::Quic => ("gateway-quic", "--quic-listen"),
        };
        command.args(["--role", role]).arg(listen).arg(node.listen.to_string());
        if node.part == Part::Quic {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHAPPE_")) {
            command.env_remove(name);
        }
        command.envs(node.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        node.child = Some(command.kill_on_drop(true).spawn().unwrap());
    }

    /// Waits until a process is ready.
    pub async fn ready(&mut self, index: usize) {
        let admin = self.nodes[index].admin;
        let waiting = async {
            loop {
                if let Some(status) = self.nodes[index].child.as_mut().unwrap().try_wait().unwrap()
                {
                    panic!("{} ended with {status}:\n{}", self.nodes[index].name, self.log(index));
                }
                // Nobody listens at first.
                if TcpStream::connect(admin).await.is_ok()
                    && http::get(admin, "/readyz").await.status == 200
                {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        if timeout(READY, waiting).await.is_err() {
            panic!("{} is not ready:\n{}", self.nodes[index].name, self.log(index));
        }
    }

    /// Kills a process as `kill -9` does.
    pub async fn kill(&mut self, index: usize) {
        self.remember(index).await;
        let mut child = self.nodes[index].child.take().expect("it runs");
        child.kill().await.unwrap();
    }

    /// Stops a process as an operator does, and waits until it has ended.
    pub async fn stop(&mut self, index: usize) {
        self.remember(index).await;
        self.signal(index, Signal::TERM);
        let mut child = self.nodes[index].child.take().expect("it runs");
        let ended = timeout(READY, child.wait()).await.expect("it ends").unwrap();
        assert!(
            ended.success(),
            "{} ended with {ended}:\n{}",
            self.nodes[index].name,
            self.log(index)
        );
    }

    /// Sends a process a signal.
    pub fn signal(&self, index: usize, signal: Signal) {
        let pid = self.nodes[index].child.as_ref().and_then(Child::id).expect("it runs");
        kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
    }

    /// The last lines of a process's log.
    pub fn log(&self, index: usize) -> String {
        let path = self.folder.path().join(format!("{}.log", self.nodes[index].name));
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// A count over all processes and all their lives. Those that do not run now, or do not
    /// answer, give what they gave last.
    pub async fn count(&self, name: &str) -> f64 {
        let mut sum = 0.0;
        for node in &self.nodes {
            sum += node.past.iter().filter(|(of, _)| of == name).map(|(_, n)| n).sum::<f64>();
            if node.child.is_some() {
                let now = counts(node.admin).await;
                sum += now.iter().filter(|(of, _)| of == name).map(|(_, n)| n).sum::<f64>();
            }
        }
        sum
    }

    /// How many partitions a broker leads.
    pub async fn leads(&self, index: usize) -> u32 {
        let counts = counts(self.nodes[index].admin).await;
        let leading = counts.iter().find(|(name, _)| name == "chappe_broker_leading_count");
        leading.map_or(0, |(_, count)| *count as u32)
    }

    /// Whether every process says that it is ready, now.
    pub async fn assert_ready(&self) {
        for node in &self.nodes {
            let status = http::get(node.admin, "/readyz").await.status;
            assert_eq!(status, 200, "{}", node.name);
        }
    }

    /// The processor time that the processes of a part have used.
    pub fn cpu(&self, part: Part) -> Duration {
        let of = |index: usize| {
            let pid = self.nodes[index].child.as_ref().and_then(Child::id).expect("it runs");
            let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
            let used = threads.filter_map(|thread| {
                let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
                text.split(' ').next()?.parse::<u64>().ok()
            });
            Duration::from_nanos(used.sum())
        };
        self.of(part).into_iter().map(of).sum()
    }

    /// The resident memory of the processes of a part, in bytes.
    pub fn resident(&self, part: Part) -> u64 {
        let of = |index: usize| {
            let pid = self.nodes[index].child.as_ref().and_then(Child::id).expect("it runs");
            let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        self.of(part).into_iter().map(of).sum()
    }

    async fn remember(&mut self, index: usize) {
        let counts = counts(self.nodes[index].admin).await;
        self.nodes[index].past.extend(counts);
    }

    /// Runs a tool with the cluster's configuration to its end.
    pub async fn run(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(chappe());
        command.args(args).arg("--config").arg(self.config()).stdin(Stdio::null());
        timeout(READY, command.output()).await.expect("a tool ends").unwrap()
    }

    async fn tool(&self, args: &[&str]) {
        let ended = self.run(args).await;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.success(), "chappe {args:?}: {said}");
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("chappe.toml")
    }

    fn write_config(&self) {
        use std::os::unix::fs::PermissionsExt;
        let list = |addresses: &str| format!("['{}']", addresses.replace(',', "', '"));
        let brokers = self.of(Part::Broker).into_iter().map(|index| self.nodes[index].listen);
        let brokers: Vec<_> = brokers.map(|address| address.to_string()).collect();
        let text = format!(
            "{}\ngateway.drain = '2s'\nuplink.brokers = {}\nauth.development = true\n\
             auth.secret_file = '{}'\nlog.kind = 'kafka'\nlog.brokers = {}\nlog.topic = '{topic}'\n\
             log.group = '{topic}'\nlog.partitions = {PARTITIONS}\nstore.kind = 'scylla'\n\
             store.nodes = {}\nstore.keyspace = '{}'\nstore.user = '{}'\nstore.password = '{}'\n\
             presence.kind = 'redis'\npresence.url = '{}'\n\
             [limits.rates]\nconnection = {no_limit}\nuser = {no_limit}\nchannel = {no_limit}\n\
             address = {no_limit}\n",
            self.settings.join("\n"),
            list(&brokers.join(",")),
            self.secret().display(),
            list(&services::given("KAFKA")),
            list(&services::given("CQL")),
            self.topic.replace('-', "_"),
            services::given("CQL_USER"),
            services::given("CQL_PASSWORD"),
            services::given("REDIS"),
            topic = self.topic(),
            no_limit = "{ per_second = 0 }",
        );
        fs::write(self.config(), text).unwrap();
        let secret: [u8; 32] = std::array::from_fn(|_| getrandom::u64().unwrap() as u8);
        fs::write(self.secret(), secret).unwrap();
        fs::set_permissions(self.secret(), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in self.nodes.iter().filter(|node| node.child.is_some()) {
                // One that is frozen says nothing; its log is there all the same.
                let page = metrics_page(node.admin).unwrap_or_default();
                drop(fs::write(self.folder.path().join(format!("{}.metrics", node.name)), page));
            }
            self.folder.disable_cleanup(true);
            let folder = self.folder.path().display();
            eprintln!("the logs and the last metrics of all processes stay in {folder}");
        }
    }
}

/// What a process counts, summed over labels; nothing if it does not answer.
async fn counts(admin: SocketAddr) -> Vec<(String, f64)> {
    let asked = async {
        TcpStream::connect(admin).await.ok()?;
        Some(http::get(admin, "/metrics").await)
    };
    let Ok(Some(page)) = timeout(SILENT, asked).await else { return Vec::new() };
    let lines = page.text().lines().filter(|line| !line.starts_with('#')).map(str::to_owned);
    let lines: Vec<_> = lines.collect();
    let pairs = lines.iter().filter_map(|line| {
        let (metric, value) = line.rsplit_once(' ')?;
        let name = metric.split_once('{').map_or(metric, |(name, _)| name);
        Some((name.to_owned(), value.parse().ok()?))
    });
    pairs.collect()
}

/// What a process answers to `/metrics`, head and all, asked without a runtime.
fn metrics_page(admin: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = std::net::TcpStream::connect_timeout(&admin, SILENT)?;
    stream.set_read_timeout(Some(SILENT))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: chappe\r\nconnection: close\r\n\r\n")?;
    let mut page = Vec::new();
    stream.read_to_end(&mut page)?;
    Ok(page)
}

/// Ports that nobody used a moment ago.
fn free_ports(count: usize) -> Vec<SocketAddr> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let held: Vec<_> = (0..count).map(|_| std::net::TcpListener::bind(any).unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap()).collect()
}
