//! Offer/answer for audio and chat (RFC 3264): pure functions from descriptions and local capabilities to descriptions
//! and [`Agreed`].

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr};

use rand::Rng;
use rand::rngs::StdRng;
use sdp_types::{Attribute, Session};

use super::chat;
use super::crypto::Crypto;
use super::description::{Description, Media, Origin, SdpError};
use super::formats::{self, Format, Numbered, Numbers};
use super::peer::{self, Acceptable, Profile, refused, warning};
use crate::media::{
    AudioParams, ChatParams, CodecKind, Direction, LocalChat, LocalMedia, PayloadFormat, SrtpKey, SrtpParams,
    SrtpPolicy, SrtpSuite,
};

/// The packet length we ask for in offers, milliseconds.
const PACKET_TIME: u32 = 20;

/// What we can do, for one offer or answer.
#[derive(Clone, Debug)]
pub struct LocalAudio {
    pub media: LocalMedia,
    /// In order of preference.
    pub codecs: Vec<CodecKind>,
    pub srtp: SrtpPolicy,
    /// What we want to do now (hold: SendOnly or Inactive).
    pub direction: Direction,
    pub symmetric: bool,
}

/// What we can do, stream by stream, for one offer or answer; what is `None` is refused or taken away with port 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local<'a> {
    pub audio: Option<&'a LocalAudio>,
    pub chat: Option<&'a LocalChat>,
}

impl Local<'_> {
    fn address(&self) -> Option<IpAddr> {
        self.audio.map(|audio| audio.media.address).or(self.chat.map(|chat| chat.address))
    }
}

/// Audio alone.
impl<'a> From<Option<&'a LocalAudio>> for Local<'a> {
    fn from(audio: Option<&'a LocalAudio>) -> Self {
        Self { audio, chat: None }
    }
}

/// What both sides run from now on; `None` for what was refused, taken away or never offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    pub audio: Option<AudioParams>,
    pub chat: Option<ChatParams>,
}

impl Agreed {
    pub fn is_something(&self) -> bool {
        self.audio.is_some() || self.chat.is_some()
    }
}

/// Why an offer or an answer cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// 400 with this text.
    #[error(transparent)]
    Malformed(#[from] SdpError),
    /// 488 with a Warning of this code (RFC 3261 §20.43) and text; the text is fit for a header.
    #[error("{text}")]
    NotAcceptable { warning: u16, text: String },
    /// 415: neither audio nor any stream we know is offered.
    #[error("no audio in the offer")]
    NoKnownMedia,
}

/// Our side of the descriptions of one session: o= identity and version, payload type numbers, keys we offered, m-line
/// order. One per session, used for every offer and answer of its life. A copy serves each fork of an offer.
#[derive(Clone, Debug)]
pub struct Negotiator {
    session_id: u64,
    /// The address in o=, which stays the same when the stream moves (RFC 3264 §8).
    origin_address: Option<IpAddr>,
    version: u64,
    /// The description that left last, for the comparison that decides about the version.
    sent: Option<Box<str>>,
    slots: Vec<Slot>,
    /// The m-lines to return to when the open offer is refused; `None` while no offer is open.
    before: Option<Vec<Slot>>,
    /// Our last offer, for as long as answers to it may come (early answers, several forks).
    offer: Option<Box<Offer>>,
    /// What the peer described last.
    remote: Option<RemoteState>,
    numbers: Numbers,
    /// Our keys, one per suite of [`SrtpSuite::ALL`], the same for the life of the stream.
    keys: [Option<SrtpKey>; 2],
    /// What an answer of ours settled on: later offers list it first, so that a hold changes no codec.
    settled: (Option<CodecKind>, Option<SrtpSuite>),
}

/// One m-line; lines are never removed or moved (RFC 3264 §8).
#[derive(Clone, Debug)]
struct Slot {
    kind: String,
    protocol: String,
    /// One format, enough for a refused line.
    format: String,
    mid: Option<String>,
    /// A stream of ours runs in it.
    live: bool,
}

#[derive(Clone, Debug)]
struct Offer {
    /// The m-line of audio and what we said there.
    audio: Option<(usize, LocalAudio)>,
    /// The same for chat.
    chat: Option<(usize, LocalChat)>,
    formats: Vec<Numbered>,
    crypto: Vec<Crypto>,
}

#[derive(Clone, Debug)]
struct RemoteState {
    /// As text: it is looked at again only when the peer offers again, and takes a fraction of the room.
    description: Box<str>,
    was_offer: bool,
}

impl Slot {
    fn of(media: &Media<'_>) -> Self {
        Self {
            kind: media.kind().to_owned(),
            protocol: media.protocol().to_owned(),
            format: media.formats().next().unwrap_or("0").to_owned(),
            mid: media.mid().map(str::to_owned),
            live: false,
        }
    }

    fn is_audio(&self) -> bool {
        self.kind.eq_ignore_ascii_case("audio")
    }

    fn is_chat(&self) -> bool {
        chat::is_chat(&self.kind)
    }

    /// The m-line as a refused one.
    fn refused(&self) -> sdp_types::Media {
        let mut media = sdp_types::Media {
            media: self.kind.clone(),
            port: 0,
            num_ports: None,
            proto: self.protocol.clone(),
            fmt: self.format.clone(),
            media_title: None,
            connections: Vec::new(),
            bandwidths: Vec::new(),
            key: None,
            attributes: Vec::new(),
        };
        media.attributes.extend(self.mid.as_ref().map(|mid| attribute("mid", Some(mid.clone()))));
        media
    }
}

fn attribute(name: &str, value: Option<String>) -> Attribute {
    Attribute { attribute: name.to_owned(), value }
}

/// What the audio m-line of one description of ours says.
struct AudioLine<'a> {
    media: &'a LocalMedia,
    formats: &'a [Numbered],
    crypto: &'a [Crypto],
    direction: Direction,
    packet_time: u32,
    rtcp_mux: bool,
}

impl AudioLine<'_> {
    fn write(&self, slot: &Slot) -> sdp_types::Media {
        let mut media = slot.refused();
        media.port = self.media.rtp_port;
        let numbers: Vec<String> = self.formats.iter().map(|entry| entry.payload_type.to_string()).collect();
        media.fmt = numbers.join(" ");
        for Numbered { format, payload_type } in self.formats {
            media.attributes.push(attribute("rtpmap", Some(format!("{payload_type} {}", format.rtpmap()))));
            let parameters = format.fmtp().map(|parameters| format!("{payload_type} {parameters}"));
            media.attributes.extend(parameters.map(|value| attribute("fmtp", Some(value))));
        }
        media.attributes.push(attribute("ptime", Some(self.packet_time.to_string())));
        if Some(self.media.rtcp_port) != self.media.rtp_port.checked_add(1) {
            media.attributes.push(attribute("rtcp", Some(self.media.rtcp_port.to_string())));
        }
        if self.rtcp_mux {
            media.attributes.push(attribute("rtcp-mux", None));
        }
        media.attributes.extend(self.crypto.iter().map(|crypto| attribute("crypto", Some(crypto.to_string()))));
        media.attributes.push(attribute(self.direction.name(), None));
        media
    }
}

impl Negotiator {
    /// The o= session id comes from `random`.
    pub fn new(random: &mut StdRng) -> Self {
        Self {
            session_id: random.next_u64() >> 2, // some stacks read it into a signed number
            origin_address: None,
            version: 1,
            sent: None,
            slots: Vec::new(),
            before: None,
            offer: None,
            remote: None,
            numbers: Numbers::default(),
            keys: [None; 2],
            settled: (None, None),
        }
    }

    /// Writes an offer: the first, or a later one (same m-line order, version + 1 only when something changed).
    /// A stream that is `None` keeps an existing m-line with port 0.
    pub fn offer<'a>(&mut self, local: impl Into<Local<'a>>, random: &mut StdRng) -> Description {
        let local = local.into();
        self.before.get_or_insert_with(|| self.slots.clone());
        let mut medias: Vec<_> = self.slots.iter().map(Slot::refused).collect();
        let mut offer = Offer { audio: None, chat: None, formats: Vec::new(), crypto: Vec::new() };
        if let Some(audio) = local.audio {
            let index = self.audio_slot(audio.srtp);
            offer.formats = self.formats_to_offer(&audio.codecs);
            offer.crypto = self.crypto_to_offer(audio.srtp, random);
            let line = AudioLine {
                media: &audio.media,
                formats: &offer.formats,
                crypto: &offer.crypto,
                direction: audio.direction,
                packet_time: PACKET_TIME,
                rtcp_mux: true,
            };
            let media = line.write(&self.slots[index]);
            match medias.get_mut(index) {
                Some(place) => *place = media,
                None => medias.push(media),
            }
            offer.audio = Some((index, audio.clone()));
        }
        if let Some(chat) = local.chat {
            let index = self.chat_slot(chat.tls);
            let media = chat::write(self.slots[index].refused(), chat, chat::Setup::ActPass);
            match medias.get_mut(index) {
                Some(place) => *place = media,
                None => medias.push(media),
            }
            offer.chat = Some((index, chat.clone()));
        }
        self.offer = Some(Box::new(offer));
        self.describe(medias, local.address())
    }

    /// The m-line to offer chat in: the running one, a free one of chat, or a new one at the end.
    fn chat_slot(&mut self, tls: bool) -> usize {
        let running = self.slots.iter().position(|slot| slot.live && slot.is_chat());
        let index = running.or_else(|| self.slots.iter().position(Slot::is_chat)).unwrap_or(self.slots.len());
        match self.slots.get_mut(index) {
            Some(slot) => chat::protocol(tls).clone_into(&mut slot.protocol),
            None => self.slots.push(Slot {
                kind: "message".into(),
                protocol: chat::protocol(tls).into(),
                format: "*".into(),
                mid: None,
                live: false,
            }),
        }
        index
    }

    /// The m-line to offer audio in: the running one, a free one of audio, or a new one at the end.
    fn audio_slot(&mut self, policy: SrtpPolicy) -> usize {
        let running = self.running_audio();
        let index = running.or_else(|| self.slots.iter().position(Slot::is_audio)).unwrap_or(self.slots.len());
        let wanted = if policy == SrtpPolicy::Mandatory { "RTP/SAVP" } else { "RTP/AVP" };
        match self.slots.get_mut(index) {
            // A running stream keeps its profile, unless it says SRTP and that is switched off now.
            Some(slot) if slot.live && policy != SrtpPolicy::Disabled => {}
            Some(slot) if slot.live && Profile::of(&slot.protocol).is_some_and(|profile| !profile.secure) => {}
            Some(slot) => wanted.clone_into(&mut slot.protocol),
            None => self.slots.push(Slot {
                kind: "audio".into(),
                protocol: wanted.into(),
                format: "0".into(),
                mid: None,
                live: false,
            }),
        }
        index
    }

    fn formats_to_offer(&mut self, codecs: &[CodecKind]) -> Vec<Numbered> {
        let first = self.settled.0.filter(|codec| codecs.contains(codec));
        let mut formats: Vec<Format> = Vec::new();
        for codec in first.into_iter().chain(codecs.iter().copied()) {
            if !formats.contains(&Format::Codec(codec)) {
                formats.push(Format::Codec(codec));
            }
        }
        if codecs.iter().any(|codec| codec.clock_rate() == 48_000) {
            formats.push(Format::Events(48_000));
        }
        formats.push(Format::Events(8_000));
        let number = |format| Some(Numbered { format, payload_type: self.numbers.assign(format, None)? });
        formats.into_iter().filter_map(number).collect()
    }

    fn crypto_to_offer(&mut self, policy: SrtpPolicy, random: &mut StdRng) -> Vec<Crypto> {
        if policy == SrtpPolicy::Disabled {
            return Vec::new();
        }
        let mut lines: Vec<Crypto> = (1..)
            .zip(SrtpSuite::ALL)
            .map(|(tag, suite)| Crypto { tag, suite, key: self.key(suite, random), lifetime: None })
            .collect();
        lines.sort_by_key(|line| Some(line.suite) != self.settled.1); // stable: only the settled one moves
        lines
    }

    /// Our key for a suite, made at its first use.
    fn key(&mut self, suite: SrtpSuite, random: &mut StdRng) -> SrtpKey {
        let slot = match suite {
            SrtpSuite::AesCm128HmacSha1_80 => &mut self.keys[0],
            SrtpSuite::AesCm128HmacSha1_32 => &mut self.keys[1],
        };
        *slot.get_or_insert_with(|| {
            let mut key = [0; 30];
            random.fill_bytes(&mut key);
            SrtpKey(key)
        })
    }

    /// Puts the m-lines under our o= line; its version grows when the text differs from the one that left last.
    fn describe(&mut self, medias: Vec<sdp_types::Media>, address: Option<IpAddr>) -> Description {
        let origin_address = match (self.origin_address, address) {
            (Some(known), _) => known,
            (None, Some(address)) => *self.origin_address.insert(address),
            (None, None) => Ipv4Addr::UNSPECIFIED.into(), // nothing but refused lines
        };
        let origin = sdp_types::Origin::with_ip_addr(self.session_id, self.version, origin_address);
        let mut model = Session::new(origin, "-");
        model.connection = Some(sdp_types::Connection::from_ip_addr(address.unwrap_or(origin_address)));
        model.times = vec![sdp_types::Time { start_time: 0, stop_time: 0, repeats: Vec::new() }];
        model.medias = medias;
        let mut description = Description::from_model(model.clone());
        if self.sent.as_ref().is_some_and(|sent| **sent != *description.to_string()) {
            self.version += 1;
            model.origin.sess_version = self.version;
            description = Description::from_model(model);
        }
        self.sent = Some(description.to_string().into());
        description
    }

    /// Takes the answer to our last offer: a stream is `None` that was refused (port 0) or not offered. A second answer to the
    /// same offer (of another fork, or a 200 after an early one) is taken too and replaces the first.
    ///
    /// # Errors
    /// When the answer breaks the offer: unknown codecs, a crypto line that was not offered, no keys where SRTP is
    /// mandatory, no or another m-line in the place of a stream, an address we do not send to. The offer stays open.
    pub fn accept_answer(&mut self, answer: &Description) -> Result<Agreed, NegotiationError> {
        let offer = self.offer.as_ref().ok_or_else(|| refused(warning::OTHER, "an answer without an offer"))?;
        let audio = match &offer.audio {
            Some((index, local)) => {
                let mut lines = answer.media();
                let media = lines.nth(*index).filter(|media| media.kind().eq_ignore_ascii_case("audio"));
                let media =
                    media.ok_or_else(|| refused(warning::OTHER, "the answer has no audio where we offered it"))?;
                if media.port() == 0 { None } else { Some(offer.params(&media, local)?) }
            }
            None => None,
        };
        let chat = match &offer.chat {
            Some((index, local)) => {
                let media = answer.media().nth(*index).filter(|media| chat::is_chat(media.kind()));
                let media =
                    media.ok_or_else(|| refused(warning::OTHER, "the answer has no chat where we offered it"))?;
                if media.port() == 0 { None } else { Some(chat::answered(&media, local)?) }
            }
            None => None,
        };
        let live_audio = offer.audio.as_ref().filter(|_| audio.is_some()).map(|(index, _)| *index);
        let live_chat = offer.chat.as_ref().filter(|_| chat.is_some()).map(|(index, _)| *index);
        self.settle(live_audio, live_chat);
        self.before = None;
        self.remote = Some(RemoteState { description: answer.to_string().into(), was_offer: false });
        Ok(Agreed { audio, chat })
    }

    fn running_audio(&self) -> Option<usize> {
        self.slots.iter().position(|slot| slot.live && slot.is_audio())
    }

    /// The streams that an offer adds to those that run.
    pub fn added(&self, offer: &Description) -> OfferSummary {
        let all = Self::inspect(offer);
        let runs = |is: fn(&Slot) -> bool| self.slots.iter().any(|slot| slot.live && is(slot));
        OfferSummary { audio: all.audio && !runs(Slot::is_audio), chat: all.chat && !runs(Slot::is_chat), ..all }
    }

    /// Marks the m-lines in which streams run from now on.
    fn settle(&mut self, audio: Option<usize>, chat: Option<usize>) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            slot.live = Some(index) == audio || Some(index) == chat;
        }
        if audio.is_none() {
            self.keys = [None; 2]; // a later stream gets keys of its own
            self.settled = (None, None);
        }
    }

    /// What an offer holds, before the application decides: is there audio (or chat) that we could take?
    pub fn inspect(offer: &Description) -> OfferSummary {
        let active = |kind: &'static str| {
            offer.media().filter(move |media| media.kind().eq_ignore_ascii_case(kind) && media.port() != 0)
        };
        let audio = active("audio").find(|media| Profile::of(media.protocol()).is_some());
        OfferSummary {
            audio: audio.is_some(),
            chat: active("message").any(|media| chat::is_usable(&media)),
            audio_direction: audio.map_or(Direction::Inactive, |media| peer::direction(&media).reversed()),
        }
    }

    /// Answers an offer. A stream that is `None` is refused with port 0. Every m-line of the offer gets one line in the answer.
    /// Errors leave the state as it was.
    pub fn answer<'a>(
        &mut self,
        offer: &Description,
        local: impl Into<Local<'a>>,
        random: &mut StdRng,
    ) -> Result<(Description, Agreed), NegotiationError> {
        let mut next = self.clone();
        let answered = next.answer_in_place(offer, local.into(), random)?;
        *self = next;
        Ok(answered)
    }

    fn answer_in_place(
        &mut self,
        offer: &Description,
        local: Local<'_>,
        random: &mut StdRng,
    ) -> Result<(Description, Agreed), NegotiationError> {
        self.check_continuity(offer)?;
        let first = self.slots.is_empty();
        let running = self.running_audio();
        let running_chat = self.slots.iter().position(|slot| slot.live && slot.is_chat());
        let chosen_chat = local.chat.map(|chat| choose_chat(offer, chat, running_chat));
        let (chosen_chat, no_chat) = match chosen_chat.transpose() {
            Ok(chosen) => (chosen.flatten(), None),
            Err(error) => (None, Some(error)),
        };
        let chosen = match local.audio.map(|audio| choose(offer, audio, running)).transpose() {
            Ok(chosen) => chosen.flatten(),
            Err(_) if chosen_chat.is_some() => None, // one of two is better than none
            Err(error) => return Err(error),
        };
        if let Some(error) = no_chat.filter(|_| chosen.is_none()) {
            return Err(error);
        }
        let something = local.audio.is_some() || local.chat.is_some();
        if something
            && chosen.is_none()
            && chosen_chat.is_none()
            && first
            && offer.media().any(|media| media.port() != 0)
        {
            return Err(NegotiationError::NoKnownMedia);
        }
        self.slots = offer.media().map(|media| Slot::of(&media)).collect();
        let mut medias: Vec<_> = self.slots.iter().map(Slot::refused).collect();
        let mut agreed = Agreed::default();
        if let (Some(audio), Some((index, media, accepted))) = (local.audio, &chosen) {
            let (line, params) = self.agree(media, accepted, audio, random)?;
            if let (Some(place), Some(slot)) = (medias.get_mut(*index), self.slots.get(*index)) {
                *place = line.borrow(audio).write(slot);
            }
            self.settled = (Some(accepted.kind), accepted.crypto.map(|crypto| crypto.suite));
            agreed.audio = Some(params);
        }
        let live_chat = chosen_chat.as_ref().map(|(index, ..)| *index);
        if let (Some(chat), Some((index, params, setup))) = (local.chat, chosen_chat) {
            if let (Some(place), Some(slot)) = (medias.get_mut(index), self.slots.get(index)) {
                *place = chat::write(slot.refused(), chat, setup);
            }
            agreed.chat = Some(params);
        }
        self.settle(chosen.map(|(index, ..)| index), live_chat);
        (self.offer, self.before) = (None, None);
        self.remote = Some(RemoteState { description: offer.to_string().into(), was_offer: true });
        Ok((self.describe(medias, local.address()), agreed))
    }

    /// Refuses a later offer that contradicts the earlier ones (RFC 3264 §8).
    fn check_continuity(&self, offer: &Description) -> Result<(), NegotiationError> {
        if offer.media().len() < self.slots.len() {
            return Err(refused(warning::OTHER, "the offer has fewer m-lines than the session"));
        }
        for (slot, media) in self.slots.iter().zip(offer.media()) {
            if slot.live && !slot.kind.eq_ignore_ascii_case(media.kind()) {
                return Err(refused(warning::OTHER, "the offer changes the media type of a running stream"));
            }
        }
        // Compared only with an offer: many phones let the o= line of their answer stand when they go on to offer. A
        // changed identity is a new author (a transfer behind a back-to-back agent), who counts from anywhere.
        let Some(RemoteState { description: text, was_offer: true }) = &self.remote else { return Ok(()) };
        let last = Description::parse(text.as_bytes())?;
        let (old, new) = (last.origin(), offer.origin());
        let same_author = Origin { version: new.version.clone(), ..old.clone() } == new;
        match compare_numbers(&new.version, &old.version) {
            Some(Ordering::Equal) if same_author && last != *offer => {
                Err(refused(warning::OTHER, "the offer changed but the version in its o= line did not"))
            }
            Some(Ordering::Less) if same_author => {
                Err(refused(warning::OTHER, "the version in the o= line went backwards"))
            }
            _ => Ok(()),
        }
    }

    /// The line that answers an accepted m-line, and what both sides run from now on.
    fn agree(
        &mut self,
        media: &Media<'_>,
        accepted: &Acceptable,
        audio: &LocalAudio,
        random: &mut StdRng,
    ) -> Result<(AgreedLine, AudioParams), NegotiationError> {
        let mut number = |entry: Numbered| {
            let payload_type = self.numbers.assign(entry.format, Some(entry.payload_type))?;
            Some(Numbered { format: entry.format, payload_type })
        };
        let codec = number(accepted.codec);
        let codec = codec.ok_or_else(|| refused(warning::MEDIA_FORMAT, "no payload type number is left"))?;
        let events = accepted.events.and_then(number);
        let mut crypto = None;
        let mut srtp = None;
        if let Some(theirs) = accepted.crypto {
            let ours =
                Crypto { tag: theirs.tag, suite: theirs.suite, key: self.key(theirs.suite, random), lifetime: None };
            srtp = Some(srtp_params(&ours, &theirs)?);
            crypto = Some(ours);
        }
        let direction = meet(audio.direction, accepted.direction);
        let rtcp_mux = media.rtcp_mux() && !clashes_with_rtcp(codec.payload_type);
        let params = AudioParams {
            remote_rtp: accepted.remote.rtp,
            remote_rtcp: if rtcp_mux { accepted.remote.rtp } else { accepted.remote.rtcp },
            rtcp_mux,
            direction,
            send: PayloadFormat { codec: accepted.kind, payload_type: accepted.codec.payload_type },
            receive: vec![PayloadFormat { codec: accepted.kind, payload_type: codec.payload_type }],
            dtmf_send: accepted.events.map(|events| events.payload_type),
            dtmf_receive: events.map(|events| events.payload_type),
            ptime_ms: accepted.packet_time,
            srtp,
            symmetric: audio.symmetric,
        };
        let formats = std::iter::once(codec).chain(events).collect();
        Ok((AgreedLine { formats, crypto, direction, packet_time: accepted.packet_time, rtcp_mux }, params))
    }

    /// Forgets an offer that was refused or withdrawn. The version goes on from it: the peer has seen it.
    pub fn roll_back(&mut self) {
        if let Some(slots) = self.before.take() {
            self.slots = slots;
            self.offer = None;
        }
    }
}

/// An answered audio line that owns its parts.
struct AgreedLine {
    formats: Vec<Numbered>,
    crypto: Option<Crypto>,
    direction: Direction,
    packet_time: u32,
    rtcp_mux: bool,
}

impl AgreedLine {
    fn borrow<'a>(&'a self, audio: &'a LocalAudio) -> AudioLine<'a> {
        AudioLine {
            media: &audio.media,
            formats: &self.formats,
            crypto: self.crypto.as_slice(),
            direction: self.direction,
            packet_time: self.packet_time,
            rtcp_mux: self.rtcp_mux,
        }
    }
}

/// The audio m-line to take: the running one, or else the first that fits. `None` when no audio is offered.
///
/// # Errors
/// Why the first one does not fit, when none does.
fn choose<'a>(
    offer: &'a Description,
    audio: &LocalAudio,
    running: Option<usize>,
) -> Result<Option<(usize, Media<'a>, Acceptable)>, NegotiationError> {
    let mut offered: Vec<_> = offer
        .media()
        .enumerate()
        .filter(|(_, media)| media.kind().eq_ignore_ascii_case("audio") && media.port() != 0)
        .collect();
    offered.sort_by_key(|(index, _)| Some(*index) != running); // stable: only the running one moves
    let mut problem = None;
    for (index, media) in offered {
        match Acceptable::check(&media, audio) {
            Ok(accepted) => return Ok(Some((index, media, accepted))),
            Err(error) => problem = problem.or(Some(error)),
        }
    }
    problem.map_or(Ok(None), Err)
}

/// The same for chat.
fn choose_chat(
    offer: &Description,
    chat: &LocalChat,
    running: Option<usize>,
) -> Result<Option<(usize, ChatParams, chat::Setup)>, NegotiationError> {
    let mut offered: Vec<_> =
        offer.media().enumerate().filter(|(_, media)| chat::is_chat(media.kind()) && media.port() != 0).collect();
    offered.sort_by_key(|(index, _)| Some(*index) != running); // stable: only the running one moves
    let mut problem = None;
    for (index, media) in offered {
        match chat::offered(&media, chat) {
            Ok((params, setup)) => return Ok(Some((index, params, setup))),
            Err(error) => problem = problem.or(Some(error)),
        }
    }
    problem.map_or(Ok(None), Err)
}

impl Offer {
    /// What both sides run from now on, from the answered audio m-line.
    fn params(&self, media: &Media<'_>, local: &LocalAudio) -> Result<AudioParams, NegotiationError> {
        let srtp = self.agreed_keys(media, local.srtp)?;
        let known = formats::known(media);
        let send = known.iter().find_map(|entry| match entry.format {
            Format::Codec(codec) if self.number(entry.format).is_some() => {
                Some(PayloadFormat { codec, payload_type: entry.payload_type })
            }
            _ => None,
        });
        let send = send.ok_or_else(|| refused(warning::MEDIA_FORMAT, "the answer holds none of the codecs offered"))?;
        let mut receive: Vec<PayloadFormat> = self.formats.iter().filter_map(codec_format).collect();
        // The peer should send with our numbers (RFC 3264 §6.1); one that sends with its own is understood as well.
        for entry in known.iter().filter(|entry| self.number(entry.format).is_some()) {
            if !self.formats.iter().any(|ours| ours.payload_type == entry.payload_type) {
                receive.extend(codec_format(entry));
            }
        }
        let events = formats::events_for(send.codec, &known);
        let remote = peer::remote(media, &local.media)?;
        let rtcp_mux = media.rtcp_mux() && !clashes_with_rtcp(send.payload_type);
        Ok(AudioParams {
            remote_rtp: remote.rtp,
            remote_rtcp: if rtcp_mux { remote.rtp } else { remote.rtcp },
            rtcp_mux,
            direction: meet(local.direction, peer::direction(media)),
            send,
            receive,
            dtmf_send: events.map(|events| events.payload_type),
            dtmf_receive: events.and_then(|events| self.number(events.format)),
            ptime_ms: peer::packet_time(media, send.codec),
            srtp,
            symmetric: local.symmetric,
        })
    }

    /// The number we offered a format with.
    fn number(&self, format: Format) -> Option<u8> {
        self.formats.iter().find(|entry| entry.format == format).map(|entry| entry.payload_type)
    }

    /// The keys of an answer: the line must be one of those we offered (RFC 4568 §5.1.3).
    fn agreed_keys(&self, media: &Media<'_>, policy: SrtpPolicy) -> Result<Option<SrtpParams>, NegotiationError> {
        let profile = Profile::of(media.protocol()).filter(|profile| !profile.dtls);
        let profile = profile.ok_or_else(|| refused(warning::TRANSPORT, "the answer's profile was not offered"))?;
        let answered = if self.crypto.is_empty() { None } else { media.crypto().next() };
        match answered {
            Some(Ok(theirs)) => {
                let ours = self.crypto.iter().find(|ours| ours.tag == theirs.tag && ours.suite == theirs.suite);
                let ours = ours.ok_or_else(|| refused(warning::ATTRIBUTE, "the answered a=crypto was not offered"))?;
                srtp_params(ours, &theirs).map(Some)
            }
            Some(Err(error)) => Err(refused(warning::ATTRIBUTE, format!("the answered a=crypto is unusable: {error}"))),
            None if profile.secure || policy == SrtpPolicy::Mandatory => {
                Err(refused(warning::ATTRIBUTE, "the answer has no keys but SRTP is required"))
            }
            None => Ok(None),
        }
    }
}

fn codec_format(entry: &Numbered) -> Option<PayloadFormat> {
    match entry.format {
        Format::Codec(codec) => Some(PayloadFormat { codec, payload_type: entry.payload_type }),
        Format::Events(_) => None,
    }
}

/// Pairs the keys of both sides. A peer that sends our own key back would make both directions use one key stream.
fn srtp_params(ours: &Crypto, theirs: &Crypto) -> Result<SrtpParams, NegotiationError> {
    if ours.key == theirs.key {
        return Err(refused(warning::ATTRIBUTE, "the peer's SRTP key is our own"));
    }
    Ok(SrtpParams { suite: ours.suite, local: ours.key, remote: theirs.key })
}

/// What remains when one side wants `ours` and the other declares `theirs`, seen from our side.
fn meet(ours: Direction, theirs: Direction) -> Direction {
    Direction::new(ours.sends() && theirs.receives(), ours.receives() && theirs.sends())
}

/// With the marker bit these look like RTCP on one port (RFC 5761 §4).
fn clashes_with_rtcp(payload_type: u8) -> bool {
    (64..96).contains(&payload_type)
}

/// Compares decimal numbers of any length; `None` when one is not a number.
fn compare_numbers(left: &str, right: &str) -> Option<Ordering> {
    let number = |text: &'_ str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let key = |text: &str| {
        let digits = text.trim_start_matches('0').to_owned();
        (digits.len(), digits)
    };
    (number(left) && number(right)).then(|| key(left).cmp(&key(right)))
}

/// What an offer contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfferSummary {
    /// An active m=audio with RTP.
    pub audio: bool,
    /// An active m=message.
    pub chat: bool,
    /// The direction offered for audio, from our side; `Inactive` without audio.
    pub audio_direction: Direction,
}

#[cfg(test)]
mod tests;
