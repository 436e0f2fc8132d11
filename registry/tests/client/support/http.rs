//! A small HTTP/1.1 server: one handler, and answers that may break in agreed ways.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A request with its whole body.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        find(&self.query, name)
    }

    pub(crate) fn params(&self, name: &str) -> Vec<&str> {
        let fits = self.query.iter().filter(|(key, _)| key == name);
        fits.map(|(_, value)| value.as_str()).collect()
    }
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut pairs = pairs.iter();
    let (_, value) = pairs.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(value)
}

/// How an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    /// No length is announced; the end is marked.
    Chunked,
    /// The connection is closed after so many bytes of the body.
    CutAfter(usize),
    /// After so many bytes of the body nothing more comes.
    SilentAfter(usize),
    /// In pieces, with pauses.
    Slow,
    /// Byte by byte, with pauses.
    Drip,
    /// The connection is closed before the head.
    Hangup,
    /// Nothing comes, not even the head.
    Silent,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) delivery: Delivery,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            delivery: Delivery::Whole,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// An error document, as registries send them.
    pub(crate) fn error(status: u16, code: &str) -> Self {
        let document = format!(r#"{{"errors":[{{"code":"{code}","message":"fake {code}"}}]}}"#);
        Self::new(status).body(document)
    }
}

pub(crate) type Handler = Arc<dyn Fn(Request) -> Reply + Send + Sync>;

/// Serves until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let handler = handler.clone();
                connections.spawn(async move {
                    // A client that goes away is no failure of the server.
                    serve(stream, handler).await.ok();
                });
            }
        });
        Self {
            address,
            _tasks: tasks,
        }
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }
}

async fn serve(stream: TcpStream, handler: Handler) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream).await? {
        let is_head = request.method == "HEAD";
        let reply = handler(request);
        if !write_reply(stream.get_mut(), reply, is_head).await? {
            return stream.get_mut().shutdown().await;
        }
    }
    Ok(())
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let Some(first) = read_line(stream).await? else {
        return Ok(None);
    };
    let mut words = first.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    while let Some(line) = read_line(stream).await?.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut request = Request {
        method,
        path: decode(path),
        query: pairs(query),
        headers,
        body: Vec::new(),
    };
    assert!(
        request.header("transfer-encoding").is_none(),
        "bodies have a length"
    );
    let length = request.header("content-length").unwrap_or("0");
    request.body.resize(length.parse().unwrap(), 0);
    stream.read_exact(&mut request.body).await?;
    Ok(Some(request))
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<String>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end().to_owned()))
}

pub(crate) fn pairs(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let split = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    split
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
                let hex = String::from_utf8(hex.to_vec()).unwrap();
                u8::from_str_radix(&hex, 16).unwrap()
            }
            byte => byte,
        });
    }
    String::from_utf8(out).unwrap()
}

/// Sends an answer; returns true if the connection can be used again.
async fn write_reply(stream: &mut TcpStream, reply: Reply, is_head: bool) -> std::io::Result<bool> {
    if reply.delivery == Delivery::Hangup {
        return Ok(false);
    }
    if reply.delivery == Delivery::Silent {
        std::future::pending::<()>().await;
    }
    let mut lines = vec![format!("HTTP/1.1 {} Fake", reply.status)];
    let given = reply.headers.iter();
    lines.extend(given.map(|(name, value)| format!("{name}: {value}")));
    if reply.delivery == Delivery::Chunked {
        lines.push("Transfer-Encoding: chunked".to_owned());
    } else if find(&reply.headers, "content-length").is_none() {
        lines.push(format!("Content-Length: {}", reply.body.len()));
    }
    let head = lines.join("\r\n") + "\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    if is_head {
        return Ok(true);
    }
    write_body(stream, &reply).await
}

async fn write_body(stream: &mut TcpStream, reply: &Reply) -> std::io::Result<bool> {
    let body = &reply.body[..];
    match reply.delivery {
        Delivery::Whole | Delivery::Hangup | Delivery::Silent => stream.write_all(body).await?,
        Delivery::Chunked => {
            let size = format!("{:x}\r\n", body.len());
            stream.write_all(size.as_bytes()).await?;
            stream.write_all(body).await?;
            stream.write_all(b"\r\n0\r\n\r\n").await?;
        }
        Delivery::CutAfter(n_bytes) => {
            stream.write_all(&body[..n_bytes]).await?;
            return Ok(false);
        }
        Delivery::SilentAfter(n_bytes) => {
            stream.write_all(&body[..n_bytes]).await?;
            std::future::pending::<()>().await;
        }
        Delivery::Drip => {
            for byte in body {
                stream.write_all(&[*byte]).await?;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Delivery::Slow => {
            for piece in body.chunks(body.len() / 10 + 1) {
                stream.write_all(piece).await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    Ok(true)
}
