//! Signatures: what is believed, and that there is one text for one meaning.

use proptest::prelude::*;

use super::*;

fn key() -> (SigningKey, VerifyingKey) {
    let key = SigningKey::generate().unwrap();
    let public = key.verifying_key().unwrap();
    (key, public)
}

fn signed(sha256: [u8; 32], keys: &[&SigningKey]) -> Signatures {
    let mut signatures = Signatures::new(sha256);
    for key in keys {
        signatures.sign(key).unwrap();
    }
    signatures
}

#[test]
fn one_trusted_key_of_several_is_enough_and_none_is_not() {
    let ((one, one_pub), (two, two_pub), (_, three_pub)) = (key(), key(), key());
    let signatures = signed([7; 32], &[&one, &two]);
    assert_eq!(signatures.signer(&[7; 32], &[three_pub, two_pub]), Ok(1));
    assert_eq!(signatures.signer(&[7; 32], &[one_pub]), Ok(0));
    let others = Why::OtherKeys(vec![one_pub.id(), two_pub.id()]);
    assert_eq!(signatures.signer(&[7; 32], &[three_pub]), Err(others));
    assert!(signatures.signer(&[7; 32], &[]).is_err());
}

#[test]
fn a_signature_of_another_component_is_not_taken_whatever_its_text_says() {
    let (key, public) = key();
    let signatures = signed([7; 32], &[&key]);
    assert_eq!(signatures.signer(&[8; 32], &[public]), Err(Why::OtherFile([7; 32])));
    // The text is changed to say that it is of this one.
    let moved = Signatures {
        sha256: [8; 32],
        ..signatures.clone()
    };
    assert_eq!(moved.signer(&[8; 32], &[public]), Err(Why::Invalid(public.id())));
}

#[test]
fn another_keys_signature_under_a_trusted_name_is_not_taken() {
    let ((key, public), (other, other_pub)) = (key(), key());
    let mut signatures = signed([7; 32], &[&other]);
    signatures.list[0].key = public.id();
    assert_eq!(signatures.signer(&[7; 32], &[public]), Err(Why::Invalid(public.id())));
    assert!(
        signatures.signer(&[7; 32], &[other_pub]).is_err(),
        "nor under the wrong one"
    );
    // Whoever has the key takes the place of it.
    signatures.sign(&key).unwrap();
    assert_eq!(signatures.signer(&[7; 32], &[public]), Ok(0));
}

#[test]
fn what_the_key_has_signed_for_something_else_is_not_taken() {
    let (key, public) = key();
    let digest = [7; 32];
    for message in [
        digest.to_vec(),
        hex(&digest).into_bytes(),
        format!("sha256 {}\n", hex(&digest)).into_bytes(),
        format!("{PURPOSE}\nsha256 {}", hex(&digest)).into_bytes(),
        format!("gateway-plugin-signature-v2\nsha256 {}\n", hex(&digest)).into_bytes(),
    ] {
        let signatures = Signatures {
            sha256: digest,
            list: vec![Signature {
                key: public.id(),
                bytes: key.sign(&message).unwrap(),
            }],
        };
        assert_eq!(signatures.signer(&digest, &[public]), Err(Why::Invalid(public.id())));
    }
}

#[test]
fn who_signs_again_takes_the_place_of_the_first_time() {
    let keys: Vec<_> = (0..MAX_SIGNATURES).map(|_| key().0).collect();
    let mut signatures = signed([7; 32], &keys.iter().collect::<Vec<_>>());
    signatures.sign(&keys[3]).unwrap();
    assert_eq!(signatures.keys().count(), MAX_SIGNATURES);
    assert!(signatures.sign(&key().0).unwrap_err().contains("already"));
    assert!(signatures.to_string().len() <= MAX_BYTES);
    assert_eq!(Signatures::parse(signatures.to_string().as_bytes()), Ok(signatures));
}

#[test]
fn what_is_no_such_text_is_refused_with_its_line() {
    let (key, public) = key();
    let text = signed([7; 32], &[&key]).to_string();
    let line = text.lines().last().unwrap();
    for (wrong, why) in [
        (String::new(), "does not end with a line"),
        ("\n".to_owned(), "line 1"),
        (text.trim_end().to_owned(), "does not end with a line"),
        (text.replace('\n', "\r\n"), "line 1"),
        (text.replace("v1", "v2"), "line 1"),
        (text.replacen("sha256 0", "sha256 F", 1), "line 2"),
        (text.replacen("sha256 07", "sha256 7", 1), "line 2"),
        (text.replacen("ed25519 ", "ed448 ", 1), "line 3"),
        (text.replacen("ed25519 ", "ed25519  ", 1), "line 3"),
        (text.replace("==\n", "\n"), "line 3"),
        (format!("{text}\n"), "line 4"),
        (format!("{text}{line}\n"), "line 4: this key has signed already"),
        (message(&[7; 32]), "line 3: there is no signature"),
    ] {
        let said = Signatures::parse(wrong.as_bytes()).unwrap_err();
        assert!(said.contains(why), "{wrong:?}: {said}");
    }
    assert_eq!(Signatures::parse(b"\xff\n").unwrap_err(), "it is not text");
    let mut many = text.clone();
    for id in 0..MAX_SIGNATURES {
        many.push_str(&line.replace(&public.id().to_string(), &format!("{id:016x}")));
        many.push('\n');
    }
    assert!(Signatures::parse(many.as_bytes()).unwrap_err().contains("more than 16"));
}

fn any_signatures() -> impl Strategy<Value = Signatures> {
    let one = (any::<[u8; 8]>(), any::<[u8; SIGNATURE]>());
    let list = prop::collection::vec(one, 1..=MAX_SIGNATURES);
    (any::<[u8; 32]>(), list).prop_filter_map("one signature of each key", |(sha256, list)| {
        let signature = |(id, bytes): &([u8; 8], [u8; SIGNATURE])| Signature {
            key: KeyId::parse(&hex(id)).unwrap(),
            bytes: *bytes,
        };
        let list: Vec<Signature> = list.iter().map(signature).collect();
        let is_new = |at: usize| list[..at].iter().all(|known| known.key != list[at].key);
        (0..list.len()).all(is_new).then(|| Signatures {
            sha256,
            list: list.clone(),
        })
    })
}

proptest! {
    #[test]
    fn signatures_are_what_their_text_says(signatures in any_signatures()) {
        let text = signatures.to_string();
        prop_assert!(text.len() <= MAX_BYTES);
        prop_assert_eq!(Signatures::parse(text.as_bytes()), Ok(signatures));
    }

    /// So that nothing can be hidden in a text, and no two texts mean the same.
    #[test]
    fn a_text_that_is_taken_is_the_one_that_would_be_written(
        signatures in any_signatures(), at in any::<prop::sample::Index>(), byte in any::<u8>(), insert in any::<bool>(),
    ) {
        let mut text = signatures.to_string().into_bytes();
        let at = at.index(text.len());
        match insert {
            true => text.insert(at, byte),
            false => text[at] = byte,
        }
        if let Ok(read) = Signatures::parse(&text) {
            prop_assert_eq!(read.to_string().into_bytes(), text);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(read) = Signatures::parse(&bytes) {
            prop_assert_eq!(read.to_string().into_bytes(), bytes);
        }
    }
}
