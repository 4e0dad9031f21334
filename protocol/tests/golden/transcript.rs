//! A transcript file: what is sent and what comes back, and how it is written down.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use crate::ordered::Ordered;

pub(crate) struct Transcript {
    /// `commands/publish`, say.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) json: Ordered,
}

/// One line of a transcript that carries a frame.
pub(crate) struct Frame {
    pub(crate) actor: String,
    /// The client sends it; else the server does.
    pub(crate) from_client: bool,
    /// As it is written, its samples put in. None where it is no JSON.
    pub(crate) frame: Option<Ordered>,
    pub(crate) json: Vec<u8>,
    pub(crate) msgpack: Vec<u8>,
}

impl Transcript {
    pub(crate) fn read_all(folder: &str) -> Vec<Self> {
        let path = Path::new("golden").join(folder);
        let mut all: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let stem = path.file_stem().unwrap().to_str().unwrap();
                let name = format!("{folder}/{stem}");
                let text = fs::read_to_string(&path).unwrap();
                let json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
                Self { name, path, text, json }
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub(crate) fn steps(&self) -> &[Ordered] {
        match self.json.get("steps") {
            Some(Ordered::Array(steps)) => steps,
            _ => panic!("{} has no steps", self.name),
        }
    }

    fn samples(&self) -> Ordered {
        self.json.get("sample").cloned().unwrap_or(Ordered::Map(Vec::new()))
    }

    pub(crate) fn frames(&self) -> Vec<Frame> {
        let samples = self.samples();
        self.steps().iter().filter_map(|step| frame(step, &samples)).collect()
    }

    /// The file as it should be: one frame a line, its MessagePack form below it.
    pub(crate) fn render(&self) -> String {
        let Ordered::Map(entries) = &self.json else { panic!("{} is no map", self.name) };
        let mut out = String::from("{\n");
        for (key, value) in entries.iter().filter(|(key, _)| key != "steps") {
            writeln!(out, "  \"{key}\": {},", value.to_line()).unwrap();
        }
        out.push_str("  \"steps\": [\n");
        let samples = self.samples();
        let steps: Vec<_> = self.steps().iter().map(|step| render_step(step, &samples)).collect();
        out.push_str(&steps.join(",\n"));
        out.push_str("\n  ]\n}\n");
        out
    }
}

fn render_step(step: &Ordered, samples: &Ordered) -> String {
    let Some(json) = step.get("json") else { return format!("    {}", step.to_line()) };
    let (side, actor) = side(step).expect("a frame has a side");
    let hex = to_hex(&json.with_samples(samples).to_msgpack());
    format!(
        "    {{\"{side}\": \"{actor}\",\n     \"json\": {},\n     \"msgpack\": \"{hex}\"}}",
        json.to_line()
    )
}

fn side(step: &Ordered) -> Option<(&'static str, &str)> {
    ["from", "to"].into_iter().find_map(|side| Some((side, step.get(side)?.text()?)))
}

fn frame(step: &Ordered, samples: &Ordered) -> Option<Frame> {
    let (side, actor) = side(step)?;
    let msgpack = from_hex(step.get("msgpack").and_then(Ordered::text).unwrap_or_default());
    let frame = step.get("json").map(|json| json.with_samples(samples));
    let json = match &frame {
        Some(frame) => frame.to_line(),
        None => step.get("raw").and_then(Ordered::text).expect("json or raw").to_owned(),
    };
    let (actor, from_client) = (actor.to_owned(), side == "from");
    Some(Frame { actor, from_client, frame, json: json.into_bytes(), msgpack })
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
