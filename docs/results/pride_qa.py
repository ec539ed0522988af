"""96 questions about *Pride and Prejudice*: eight parts of the novel as documents, twelve questions on each, in LongBench's format.

    python docs/results/pride_qa.py pride-and-prejudice.pdf >pride-qa.jsonl

The text is Project Gutenberg 1342 and isn't in this repository. A document is a run of whole chapters: 24,000 to 26,000 tokens of
SmolLM2. They lie evenly over the novel, so that neighbours overlap. The questions on one have the same text, word for word, and follow
each other: it is read once. They were written from the text alone, before any model was asked.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from selfextend_local.evaluation.texts import read_text

_HEADING = re.compile(r"^Chapter (\d+)$", re.MULTILINE)
_END = re.compile(r"^End of the\s+Project", re.MULTILINE)


class Asked(NamedTuple):
    """The chapter that answers it, the question, and the answers: the first stands in that chapter, word for word."""

    chapter: int
    question: str
    answers: tuple[str, ...]


class Part(NamedTuple):
    """A document, from a chapter to a chapter."""

    first: int
    last: int
    asked: tuple[Asked, ...]


PARTS = (
    Part(
        1,
        13,
        (
            Asked(1, "Who told Mrs. Bennet that Netherfield Park was let?", ("Mrs. Long",)),
            Asked(3, "What colour was the coat that Mr. Bingley wore when he called on Mr. Bennet?", ("blue", "a blue coat")),
            Asked(
                4,
                "How much did Mr. Bingley inherit from his father?",
                ("nearly a hundred thousand pounds", "a hundred thousand pounds", "100,000 pounds"),
            ),
            Asked(5, "What is the name of the house to which Sir William Lucas moved with his family?", ("Lucas Lodge",)),
            Asked(6, "Which game do Mr. Bingley and Jane both like better than Commerce?", ("Vingt-un",)),
            Asked(7, "What was the profession of Mrs. Bennet's father?", ("attorney", "an attorney in Meryton", "lawyer")),
            Asked(7, "Which captain, who was going to London, did Lydia admire?", ("Captain Carter", "Carter")),
            Asked(8, "How deep in mud was Elizabeth's petticoat, as Mrs. Hurst said?", ("six inches", "six inches deep")),
            Asked(9, "With how many families do the Bennets dine, as Mrs. Bennet said?", ("four-and-twenty", "twenty-four", "24")),
            Asked(10, "Whose design for a table is inferior to Miss Darcy's, as Miss Bingley thinks?", ("Miss Grantley", "Grantley")),
            Asked(11, "Who must make white soup before Mr. Bingley sends round his cards for the ball?", ("Nicholls",)),
            Asked(13, "Near which place in Kent is Hunsford, from where Mr. Collins wrote?", ("Westerham",)),
        ),
    ),
    Part(
        10,
        18,
        (
            Asked(10, "Which game did Mr. Hurst and Mr. Bingley play while Mr. Darcy wrote to his sister?", ("piquet",)),
            Asked(11, "Which volume of Mr. Darcy's book did Miss Bingley choose to read?", ("the second volume", "the second")),
            Asked(
                12,
                "What did Jane and Elizabeth find Mary studying when they came home from Netherfield?",
                ("thorough-bass and human nature", "thorough-bass", "human nature"),
            ),
            Asked(
                13,
                "On which date did Mr. Collins propose to come to Longbourn?",
                ("Monday, November 18th", "November 18th", "18 November"),
            ),
            Asked(14, "From which book did Mr. Collins read to the ladies?", ("Fordyce's Sermons", "Sermons")),
            Asked(
                15,
                "Who told Mrs. Phillips in the street that the Miss Bennets had come away from Netherfield?",
                ("Mr. Jones's shop-boy", "the shop-boy", "a shop-boy of Mr. Jones"),
            ),
            Asked(
                16,
                "How much had the chimney-piece in one of Lady Catherine's drawing-rooms cost?",
                ("eight hundred pounds", "800 pounds"),
            ),
            Asked(16, "Which sum is no object to Mr. Collins, as he said after he had lost at whist?", ("five shillings",)),
            Asked(17, "For which day of the week was the ball at Netherfield fixed?", ("Tuesday", "the following Tuesday")),
            Asked(18, "Which officer told Lydia that Wickham had been obliged to go to town?", ("Denny", "Mr. Denny")),
            Asked(
                18,
                "Which cold food was left to Lady Lucas as a comfort at the supper of the ball?",
                ("cold ham and chicken", "ham and chicken"),
            ),
            Asked(
                18,
                "How long had the Longbourn party to wait for their carriage after everybody else was gone?",
                ("a quarter of an hour", "fifteen minutes"),
            ),
        ),
    ),
    Part(
        18,
        26,
        (
            Asked(18, "With whom did Elizabeth dance the first two dances at the Netherfield ball?", ("Mr. Collins", "Collins")),
            Asked(18, "To whom did Mrs. Bennet talk at supper of Jane's marrying Mr. Bingley?", ("Lady Lucas",)),
            Asked(
                19,
                "How much money will Elizabeth have after her mother's death, as Mr. Collins said?",
                ("one thousand pounds", "one thousand pounds in the four per cents", "1,000 pounds"),
            ),
            Asked(20, "Which room does Mr. Bennet want to have to himself as soon as may be?", ("the library", "his library")),
            Asked(21, "In which street in London had Mr. Hurst a house?", ("Grosvenor Street",)),
            Asked(
                21,
                "How many courses will Mrs. Bennet have when Mr. Bingley dines at Longbourn?",
                ("two full courses", "two courses", "two"),
            ),
            Asked(22, "How old was Charlotte Lucas when Mr. Collins proposed to her?", ("twenty-seven", "27")),
            Asked(23, "On which day of the week did the letter of thanks from Mr. Collins arrive?", ("Tuesday",)),
            Asked(24, "Which man, who would jilt her creditably, did Mr. Bennet propose to Elizabeth?", ("Wickham", "Mr. Wickham")),
            Asked(25, "In which county had Mrs. Gardiner spent a considerable time before her marriage?", ("Derbyshire",)),
            Asked(26, "On which day of the week was Charlotte's wedding to be?", ("Thursday",)),
            Asked(
                26,
                "How large was the fortune that the young lady whom Wickham began to admire had suddenly got?",
                ("ten thousand pounds", "10,000 pounds"),
            ),
        ),
    ),
    Part(
        25,
        35,
        (
            Asked(25, "Of which new fashion did Mrs. Gardiner tell Mrs. Bennet?", ("long sleeves",)),
            Asked(26, "How long did Jane wait at home every morning for Miss Bingley's visit?", ("a fortnight", "two weeks")),
            Asked(
                27,
                "How many miles was the journey of Elizabeth and Sir William to Gracechurch Street?",
                ("twenty-four miles", "twenty-four", "24 miles"),
            ),
            Asked(28, "Which animals did Elizabeth expect to be in the garden when Maria called her down?", ("the pigs", "pigs")),
            Asked(29, "Which lady called on Lady Catherine to thank her for Miss Pope?", ("Lady Metcalf", "Metcalf")),
            Asked(29, "Which card game did Miss de Bourgh choose to play?", ("cassino",)),
            Asked(30, "In what did Mr. Collins drive Sir William out to show him the country?", ("his gig", "a gig")),
            Asked(
                31,
                "In whose room at Rosings may Elizabeth play on the pianoforte every day?",
                ("Mrs. Jenkinson", "Mrs. Jenkinson's room"),
            ),
            Asked(
                32,
                "How far is Hunsford from the home of Charlotte's family, as Elizabeth told Mr. Darcy?",
                ("nearly fifty miles", "fifty miles", "50 miles"),
            ),
            Asked(33, "Who shares with Mr. Darcy the guardianship of his sister?", ("Colonel Fitzwilliam", "Fitzwilliam")),
            Asked(34, "Against what was Mr. Darcy leaning while Elizabeth refused him?", ("the mantelpiece",)),
            Asked(35, "How large is Miss Darcy's fortune?", ("thirty thousand pounds", "30,000 pounds")),
        ),
    ),
    Part(
        35,
        43,
        (
            Asked(35, "At which university did Mr. Darcy's father support Wickham?", ("Cambridge",)),
            Asked(
                35,
                "How much money did Wickham accept for resigning all claim to assistance in the church?",
                ("three thousand pounds", "3,000 pounds"),
            ),
            Asked(36, "How long did Elizabeth wander along the lane after she had the letter?", ("two hours",)),
            Asked(37, "At which inn in Bromley should Elizabeth mention Lady Catherine's name?", ("the Bell", "the Bell inn")),
            Asked(38, "How many times did they dine at Rosings, as Maria said in the carriage?", ("nine times", "nine")),
            Asked(39, "In which town is the uncle to whom Mary King is gone?", ("Liverpool",)),
            Asked(39, "Whom did the girls dress up in woman's clothes at Colonel Forster's?", ("Chamberlayne",)),
            Asked(40, "As light as what will Elizabeth's heart be if Jane laments much longer?", ("a feather",)),
            Asked(
                41,
                "When which colonel's regiment went away had Mrs. Bennet cried for two days?",
                ("Colonel Miller", "Miller", "Colonel Miller's"),
            ),
            Asked(42, "What is the name of the little town in which Mrs. Gardiner had lived?", ("Lambton",)),
            Asked(43, "What is the name of the housekeeper at Pemberley?", ("Mrs. Reynolds", "Reynolds")),
            Asked(43, "How many miles round is the park of Pemberley?", ("ten miles", "ten")),
        ),
    ),
    Part(
        42,
        48,
        (
            Asked(
                42,
                "Under whose care were the Gardiners' four children left at Longbourn?",
                ("their cousin Jane", "Jane", "Jane Bennet"),
            ),
            Asked(
                43,
                "Which present from Mr. Darcy to his sister has just come down to Pemberley?",
                ("a new instrument", "an instrument", "a musical instrument"),
            ),
            Asked(43, "Before leaving which town did Elizabeth hear that Mr. Darcy was not expected?", ("Bakewell",)),
            Asked(44, "In what did Mr. Darcy and his sister drive to the inn at Lambton?", ("a curricle",)),
            Asked(
                44,
                "On which date had Mr. Bingley last met Elizabeth, as he said at Lambton?",
                ("the 26th of November", "November 26th", "26 November"),
            ),
            Asked(
                45,
                "Which lady was the first to speak when Elizabeth and her aunt sat with Miss Darcy and her guests?",
                ("Mrs. Annesley", "Annesley"),
            ),
            Asked(46, "To which place could Colonel Forster trace Lydia and Wickham easily, but no further?", ("Clapham",)),
            Asked(46, "What did Mr. Darcy offer to get for Elizabeth when she looked so ill?", ("a glass of wine", "wine")),
            Asked(47, "On which day of the week had Mr. Bennet gone to town to find Lydia?", ("Tuesday",)),
            Asked(47, "Whom did Lydia ask to excuse her for not dancing with him that night?", ("Pratt",)),
            Asked(
                48,
                "How much will be necessary to clear Wickham's expenses at Brighton, as Colonel Forster believed?",
                ("more than a thousand pounds", "a thousand pounds", "1,000 pounds"),
            ),
            Asked(48, "Near which town would Mr. Bennet not trust Kitty for fifty pounds?", ("Eastbourne",)),
        ),
    ),
    Part(
        47,
        53,
        (
            Asked(47, "On which road were no traces of Lydia and Wickham found?", ("the Barnet road", "Barnet")),
            Asked(47, "Which garment is Sally to mend for Lydia?", ("worked muslin gown", "a muslin gown", "her gown")),
            Asked(48, "How long must Kitty be a good girl before her father takes her to a review?", ("ten years",)),
            Asked(
                49,
                "Of which date is Mr. Gardiner's letter that he has seen Lydia and Wickham?",
                ("Monday, August 2", "August 2", "2 August"),
            ),
            Asked(49, "To whom will Mr. Gardiner give directions for preparing the settlement?", ("Haggerston",)),
            Asked(50, "Which part of Pulvis Lodge is dreadful, as Mrs. Bennet thinks?", ("the attics", "its attics")),
            Asked(51, "Whom did Lydia and Wickham overtake in his curricle?", ("William Goulding", "Goulding")),
            Asked(51, "In which church were Lydia and Wickham married?", ("St. Clement's", "St. Clement")),
            Asked(52, "In which street did Mrs. Younge take a large house?", ("Edward-street",)),
            Asked(52, "What is the name of the village whose living Wickham says he ought to have had?", ("Kympton",)),
            Asked(53, "How many couple of ducks has Mrs. Nicholls got for Mr. Bingley's coming?", ("three couple", "three")),
            Asked(53, "In which newspapers was Lydia's marriage announced?", ("The Times and The Courier", "Times and Courier")),
        ),
    ),
    Part(
        53,
        61,
        (
            Asked(53, "To which town in the north did Lydia and Wickham go?", ("Newcastle",)),
            Asked(54, "To which town have Miss Darcy's friends gone on from Pemberley?", ("Scarborough",)),
            Asked(54, "Which meat was roasted to a turn at Mrs. Bennet's dinner?", ("venison", "the venison")),
            Asked(55, "Which servant was called to help Jane on with her gown?", ("Sarah",)),
            Asked(
                55,
                "For what did Mary petition when Jane was engaged?",
                ("the use of the library at Netherfield", "use of the library", "the library at Netherfield"),
            ),
            Asked(
                56,
                "Who was in Lady Catherine's carriage while it remained at the door?",
                ("her waiting-woman", "Lady Catherine's waiting-woman"),
            ),
            Asked(57, "Who wrote the letter that warns Elizabeth against marrying Mr. Darcy?", ("Mr. Collins", "Collins")),
            Asked(58, "Upon whom did Kitty wish to call when she walked with Elizabeth and Mr. Darcy?", ("Maria", "Maria Lucas")),
            Asked(
                59,
                "To which place did Mrs. Bennet advise Mr. Darcy, Elizabeth and Kitty to walk?",
                ("Oakham Mount", "the Mount"),
            ),
            Asked(59, "By what kind of licence must Elizabeth be married, as her mother said?", ("a special licence", "special")),
            Asked(60, "How many sides of paper were too few for Miss Darcy's delight?", ("four", "four sides")),
            Asked(61, "Within how many miles of each other did Jane and Elizabeth live at last?", ("thirty miles", "thirty", "30")),
        ),
    ),
)


def chapters(text: str) -> dict[int, str]:
    """The chapters by number, each with its heading; a table of contents has none of them."""
    body = text[: end.start()] if (end := _END.search(text)) else text
    found = list(_HEADING.finditer(body))
    ends = [*(match.start() for match in found[1:]), len(body)]
    return {int(match[1]): body[match.start() : stop].strip() for match, stop in zip(found, ends, strict=True)}


def rows(text: str, parts: Sequence[Part] = PARTS) -> Iterator[Mapping[str, Any]]:
    """LongBench's. Raises SystemExit if a chapter is missing or an answer doesn't stand in it."""
    held = chapters(text)
    for part in parts:
        missing = [number for number in range(part.first, part.last + 1) if number not in held]
        if missing:
            raise SystemExit(f"This isn't Pride and Prejudice of Project Gutenberg: chapter {missing[0]} is missing.")
        context = "\n\n".join(held[number] for number in range(part.first, part.last + 1))
        for asked in part.asked:
            if not stands(asked.answers[0], held[asked.chapter]):
                raise SystemExit(f"{asked.answers[0]!r} doesn't stand in chapter {asked.chapter}: {asked.question}")
            yield {"context": context, "input": asked.question, "answers": asked.answers}


def stands(answer: str, text: str) -> bool:
    """As whole words, whatever their case and wherever lines end."""
    words = r"\s+".join(map(re.escape, answer.split()))
    return re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE) is not None


def main() -> None:
    for row in rows(read_text(sys.argv[1]).content):
        print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
