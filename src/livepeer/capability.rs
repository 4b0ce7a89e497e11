//! Capabilities of an orchestrator as the one kind of key the mesh uses: `pipeline/model`.

use std::collections::BTreeMap;

use crate::livepeer::proto::Capabilities;

/// Generic containers: the model is the name its owner gave the capability.
pub const BYOC: u32 = 37;
/// Live video in, live video out.
pub const LIVE_VIDEO_TO_VIDEO: u32 = 35;

/// What an orchestrator says of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Whether the model is loaded.
    pub warm: bool,
    /// How many sessions it can take in all: idle and busy slots.
    pub capacity: u32,
    /// How many of them are busy.
    pub in_use: u32,
}

/// Returns the pipeline name of a capability id, for the ids that name a kind of work and
/// not a codec.
pub fn pipeline(id: u32) -> Option<&'static str> {
    PIPELINES.iter().find(|(it, _)| *it == id).map(|(_, name)| *name)
}

/// Returns the capability id of a pipeline name.
pub fn id(pipeline: &str) -> Option<u32> {
    PIPELINES.iter().find(|(_, name)| *name == pipeline).map(|(id, _)| *id)
}

/// Tells whether the bit of capability `id` is set.
pub fn has(capabilities: &Capabilities, id: u32) -> bool {
    let word = capabilities.bitstring.get((id / 64) as usize);
    word.is_some_and(|word| word >> (id % 64) & 1 == 1)
}

/// Returns every `pipeline/model` an orchestrator offers; a BYOC capability goes by its bare
/// name. At most [`MAX_OFFERS`] of them, the first in order of capability and model; a key
/// longer than [`MAX_KEY`] bytes is left out.
pub fn offers(capabilities: &Capabilities) -> BTreeMap<String, Offer> {
    let mut offers = BTreeMap::new();
    let Some(constraints) = &capabilities.constraints else { return offers };
    for (id, of) in &constraints.per_capability {
        let Some(pipeline) = pipeline(*id) else { continue };
        for (model, constraint) in &of.models {
            let key = match *id {
                BYOC => model.clone(),
                _ => format!("{pipeline}/{model}"),
            };
            if offers.len() == MAX_OFFERS {
                return offers;
            }
            if key.len() > MAX_KEY || model.is_empty() || key.contains(char::is_control) {
                continue;
            }
            let in_use = constraint.capacity_in_use;
            let capacity = constraint.capacity.saturating_add(in_use);
            offers.insert(key, Offer { warm: constraint.warm, capacity, in_use });
        }
    }
    offers
}

/// The longest capability key, in bytes: the longest model id in use has about 70.
pub const MAX_KEY: usize = 128;
/// The most models taken from one orchestrator: several times what one machine can hold.
pub const MAX_OFFERS: usize = 256;

/// Ids that name a kind of work (go-livepeer v0.9.1), with the name in its discovery: lower
/// case, spaces as dashes.
const PIPELINES: [(u32, &str); 11] = [
    (27, "text-to-image"),
    (28, "image-to-image"),
    (29, "image-to-video"),
    (30, "upscale"),
    (31, "audio-to-text"),
    (32, "segment-anything-2"),
    (33, "llm"),
    (34, "image-to-text"),
    (LIVE_VIDEO_TO_VIDEO, "live-video-to-video"),
    (36, "text-to-speech"),
    (BYOC, "byoc"),
];

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::livepeer::proto::OrchestratorInfo;
    use crate::livepeer::proto::capabilities::CapabilityConstraints;
    use crate::livepeer::proto::capabilities::Constraints;
    use crate::livepeer::proto::capabilities::ModelConstraint;
    use crate::livepeer::proto::vectors::from_hex;
    use crate::livepeer::proto::vectors::vector;

    fn with_models(id: u32, models: impl IntoIterator<Item = String>) -> Capabilities {
        let models = models.into_iter().map(|it| (it, ModelConstraint::default())).collect();
        let per_capability = BTreeMap::from([(id, CapabilityConstraints { models })]);
        let constraints = Some(Constraints { per_capability, ..Default::default() });
        Capabilities { constraints, ..Default::default() }
    }

    #[test]
    fn a_recorded_answer_gives_its_models_and_slots() {
        let info = OrchestratorInfo::decode(&*from_hex(vector!("orchinfo_onchain"))).unwrap();
        let caps = info.capabilities.unwrap();
        let found = offers(&caps);
        let keys: Vec<&str> = found.keys().map(String::as_str).collect();
        let image = "text-to-image/SG161222/RealVisXL_V4.0_Lightning";
        assert_eq!(keys, ["live-video-to-video/noop", image]);
        let live = found["live-video-to-video/noop"];
        assert_eq!((live.capacity, live.in_use), (3, 1));
        assert!(has(&caps, 35) && has(&caps, 27) && !has(&caps, 36) && !has(&caps, 6400));
    }

    #[test]
    fn names_and_ids_are_one_to_one() {
        for (number, name) in PIPELINES {
            assert_eq!((pipeline(number), id(name)), (Some(name), Some(number)));
        }
        assert_eq!((pipeline(0), id("h.264")), (None, None));
    }

    #[test]
    fn a_byoc_capability_goes_by_its_bare_name() {
        let caps = with_models(BYOC, ["text-reversal".to_owned()]);
        assert!(offers(&caps).contains_key("text-reversal"));
    }

    #[test]
    fn offers_are_bounded_in_number_and_length() {
        let many = with_models(33, (0..=MAX_OFFERS).map(|it| it.to_string()));
        assert_eq!(offers(&many).len(), MAX_OFFERS);
        let fits = "m".repeat(MAX_KEY - "llm/".len());
        assert_eq!(offers(&with_models(33, [format!("{fits}m"), fits])).len(), 1);
    }
}
