"""The ids of a conversation: which are valid, and what an error says about the others."""

import string

import pytest

from end_conversation.conversation import Conversation, is_id
from end_conversation.errors import InvalidId
from tests.unit.doors import ID_RULE


@pytest.mark.parametrize("valid", ["a", "7", "d-1_x-", "3f0c9a1e-0000-4000-8000-1234567890ab", "a" * 128])
def test_letters_digits_hyphens_and_underscores_make_an_id(valid: str) -> None:
    conversation = Conversation(valid, valid)

    assert (conversation.deployment_id, conversation.conversation_id) == (valid, valid)


def test_no_other_character_is_allowed() -> None:
    """All Latin-1 characters, in the first and in a later position."""
    characters = [chr(number) for number in range(256)]
    letters_and_digits = string.ascii_letters + string.digits
    assert {character for character in characters if is_id(character)} == {*letters_and_digits}
    assert {character for character in characters if is_id(f"a{character}")} == {*letters_and_digits, "-", "_"}


@pytest.mark.parametrize("word", ["undefined", "null", "NaN", "None", "UNDEFINED", "Null", "nan", "none"])
def test_words_for_missing_ids_are_invalid(word: str) -> None:
    """Broken callers send them. An id may still contain them."""
    assert not is_id(word)
    assert is_id(f"{word}1")


@pytest.mark.parametrize(
    "other", ["", "\u0661\u0662", "\uff41", "a\u202eb", "\ud800", "a" * 129, None, True, 7, ["a"], {}]
)
def test_other_values_are_no_ids(other: object) -> None:
    assert not is_id(other)


@pytest.mark.parametrize(
    ("ids", "wrong"), [(("-d", "c1"), "deployment_id"), (("d1", "c/1"), "conversation_id"), (("", ""), "deployment_id")]
)
def test_an_invalid_id_is_named_but_not_quoted(ids: tuple[str, str], wrong: str) -> None:
    with pytest.raises(InvalidId) as refused:
        Conversation(*ids)

    assert str(refused.value) == f"{wrong} {ID_RULE}"
