//! Reads a server's own counts from its admin listener.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

const TIMEOUT: Duration = Duration::from_secs(5);

/// The whole exposition.
pub(crate) fn fetch(admin: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, TIMEOUT).context("the admin listener")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text.contains(" 200 "), "no metrics");
    Ok(text)
}

/// The sum of a metric over all its labels.
pub(crate) fn sum(text: &str, name: &str) -> Result<f64> {
    let mut found = None;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        if !rest.starts_with(['{', ' ']) {
            continue; // another metric, whose name begins the same
        }
        let value: f64 = rest.rsplit(' ').next().unwrap_or_default().parse()?;
        *found.get_or_insert(0.0) += value;
    }
    found.with_context(|| format!("the server does not count {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_summed_and_a_longer_name_is_another_metric() {
        let text = "# TYPE a counter\na{b=\"1\"} 2\na{b=\"2\"} 3\na_total 9\nc 4\n";
        assert_eq!(sum(text, "a").unwrap(), 5.0);
        assert_eq!(sum(text, "c").unwrap(), 4.0);
        assert!(sum(text, "b").is_err());
    }
}
