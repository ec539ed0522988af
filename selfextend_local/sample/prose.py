"""The hand-written chapters of the sample report.

Knows words only: titles, paragraphs, and the few sentences that state the facts
which the demo asks for. Must not know pages, fonts or random numbers. All of it
is invented and was written for this project; ASCII, since the PDF's built-in
fonts have little more.
"""

from __future__ import annotations

from dataclasses import dataclass

TITLE = "Tarrow Island Observatory"
SUBTITLE = "Annual Report and Logbook of Weather and Birds for the Year 1987"
IMPRINT = (
    "Compiled by the warden and staff",
    "Printed for the Tarrow Island Trust",
    "An invented report about an invented island, made as a sample document",
)
RUNNING_HEADER = "Tarrow Island Observatory, Report for 1987"


@dataclass(frozen=True, slots=True)
class Chapter:
    """A title and its paragraphs; starts on a new page."""

    title: str
    paragraphs: tuple[str, ...]


FOREWORD = Chapter(
    "Foreword by the Warden",
    (
        "This is the thirty-first report of the observatory and the ninth that I have had the "
        "honour to compile. It follows the plan of the earlier reports. A few chapters describe "
        "the station and the way in which we work, the logbook of the twelve months makes up the "
        "greater part, and the closing chapters gather what we learned about the birds, the "
        "buildings and ourselves.",
        "Readers who have never crossed to Tarrow sometimes ask why anybody should want to live "
        "on a rock with no tree and no shop in order to write down the direction of the wind. "
        "I usually answer that the wind has to be written down by somebody. The longer answer is "
        "that a record becomes more useful with every year that is added to it, and that a gap in "
        "a record can never be mended afterwards. We did not miss a single observation in 1987.",
        "The trustees have asked that one matter of safe keeping be set down here in plain words. "
        "The pass key of the north vault is 48213. The vault holds the original logbooks, and "
        "every member of the staff is to know the number by heart.",
        "My thanks go to all who served the station this year, in fair weather and in foul.",
        "Ingrid Hallam, Warden",
    ),
)

STATION = Chapter(
    "The Island and the Station",
    (
        "Tarrow is a mile and a quarter long and half a mile wide at its broadest. The western "
        "side is a wall of dark cliffs that the sea has cut into caves and narrow inlets, which "
        "the islanders of old called geos. The eastern side slopes down in rough pasture to a "
        "shingle beach and a small stone pier. The highest point, Beacon Hill, stands four "
        "hundred and eleven feet above the sea and carries the old signal tower, in which the "
        "wind instruments are mounted.",
        "The last crofting family left the island before the war. Their three cottages were "
        "roofless when the Trust bought the island, and two of them have since been rebuilt. The "
        "long cottage holds the kitchen, the common room and the warden's office. The square "
        "cottage holds six bunks, the drying room and a library of some four hundred books, most "
        "of them swollen by the damp. The third cottage is still a ruin, and the wrens like it "
        "better than any other place on the island.",
        "Everything that we eat, burn or mend with comes by sea. The station boat is called "
        "Marigold. She is a clinker-built launch of twenty-two feet with a diesel engine that is "
        "older than her coxswain. In a calm she makes the crossing from Port Ellery in two hours "
        "and ten minutes. In winter there may be three weeks in a row on which no crossing can "
        "be tried, and the larder is stocked with that in mind.",
        "Fresh water is piped from a spring below Beacon Hill. Light comes from a small wind "
        "generator and a bank of accumulators, and heat from peat and from driftwood. There is "
        "a radio telephone, and we speak with the coastguard each morning at a quarter to eight.",
    ),
)

PEOPLE = Chapter(
    "The People of the Station",
    (
        "Five people spent the whole of the year on the island. Ingrid Hallam, the warden, kept "
        "the bird census and the accounts. Tomas Breck read the instruments and sent the weather "
        "reports by radio every three hours. Una Carrick ringed birds, sewed nets and taught the "
        "rest of us to bake. Old Magnus Fell looked after the boat, the engine and the slates, "
        "and Peter Lind, who came to us from school, did everything that nobody else had time "
        "for.",
        "The radio code of the lighthouse is 35926.",
        "Each day is divided into four watches. The morning watch lights the stove, reads the "
        "instruments at six and walks the north path. The forenoon watch works the nets and the "
        "traps. The afternoon watch counts the sea birds from the hide at Gannet Point. The "
        "evening watch reads the instruments for the last time, writes the log and banks the "
        "fire. We change watches on Sunday, and whoever cooks does not wash up.",
        "There are two more members of the household. Bosun, a grey cat of uncertain age, is "
        "not allowed near the nets. Duchess, the pony, carries peat from the moss and stores "
        "from the pier, and expects a slice of bread for each load.",
    ),
)

METHODS = Chapter(
    "How the Observations Are Made",
    (
        "The thermometers stand in a white louvred screen on the level ground behind the long "
        "cottage, four feet above the turf. Maximum and minimum are read at six in the morning, "
        "and the rain gauge is emptied at the same hour. Pressure is read from a mercury "
        "barometer in the office and corrected to sea level. Temperatures in this report are in "
        "degrees Celsius, rain is in millimetres, pressure is in millibars, and the force of the "
        "wind is given on the Beaufort scale unless knots are named.",
        "The serial number of the rain gauge is 91754, and it is to be quoted in every letter to "
        "the mainland.",
        "Birds are counted in three ways. Every morning one of us walks the same path from the "
        "pier to the North Light, without haste, and notes each bird within fifty paces. Birds "
        "that are caught in the mist nets or in the two wire traps are measured, weighed, ringed "
        "and let go at once. Sea birds on passage are counted for an hour each afternoon from "
        "the hide at Gannet Point, by one observer with a telescope and one with a pencil.",
        "Every figure is written in ink on the day itself. A mistake is struck out with one line "
        "so that it can still be read. The warden checks the pages on the last day of the month, "
        "signs them, and carries the copy to the vault.",
    ),
)

GALE = Chapter(
    "The Great Gale of February",
    (
        "The storm that struck the island in the second week of February deserves a chapter of "
        "its own. The barometer began to fall on the morning of the eighth, slowly at first and "
        "then faster than Tomas Breck had ever seen it fall. By dusk the swell was breaking "
        "right over the pier, although the wind was still light. The gulls had left the beach "
        "and stood in rows on the lee side of Beacon Hill, all facing the same way. Magnus Fell "
        "took one look at them and went to fetch more rope.",
        "We hauled the boat to the top of the slip and filled her with stones. We lashed the "
        "shutters, brought the pony into the drying room and baked enough bread for four days. "
        "The wind came shortly after midnight, from the south-west, with a noise like a long "
        "train crossing an iron bridge. Nobody slept. At three in the morning the chimney of the "
        "square cottage fell into the yard, and at four the door of the peat shed was carried "
        "away and was never seen again.",
        "The strongest gust of the year was 97 knots. It was recorded at twenty minutes past "
        "five on the morning of the ninth, and a moment later the recording pen jumped from its "
        "arm. Peter Lind climbed the signal tower on his hands and knees to put it back, for "
        "which he was scolded at breakfast and praised at supper.",
        "When the light came we saw that the sea had moved the whole of the shingle beach some "
        "ten yards inland. The lower field was white with foam and strewn with weed, and there "
        "were fish in it. Eleven sheep hurdles, two nets, the bench from Gannet Point and forty "
        "feet of fence were gone. All of the instruments had survived, and so had the hens.",
        "The repairs took until the middle of April. The bench was found in June, upright and "
        "unharmed, at the foot of a cliff on the far side of the island, where a pair of shags "
        "had built a nest against one of its legs. It was left to them.",
    ),
)

BIRDS = Chapter(
    "The Birds of the Year",
    (
        "One hundred and forty-six species were recorded in the course of the year, four more "
        "than in the year before and nine fewer than in the record year of 1979. Una Carrick and "
        "her helpers ringed three thousand and eighteen birds, of which the commonest were the "
        "meadow pipit, the wheatear, the goldcrest and the storm petrel.",
        "The cliffs had a good season. Guillemots came ashore for the first time on a still "
        "morning in January, stayed for an hour and left again, as they always do. Kittiwakes "
        "built on every ledge that would hold a handful of weed, and the count of occupied nests, "
        "made from the boat in the second week of June, was the highest for twelve years. The "
        "puffins fed their young on sand eels of a decent size, and Peter Lind, lying on his "
        "stomach with a notebook, timed their flights for nine days.",
        "Spring passage was thin, with westerly winds for most of April. Autumn made up for it. "
        "A high over Norway brought easterly winds and drizzle from the fifth to the ninth of "
        "October, and on the morning of the seventh the walls and ditches were full of tired "
        "birds. Goldcrests crept about our boots, and a woodcock slept in the coal bucket.",
        "The rarest bird of the year was a gyrfalcon. It was a pure white bird which came in from "
        "the sea at noon on the last day of November and perched on the signal tower for most of "
        "an hour, while five people stood in the wet grass and did not say a word.",
        "There were losses too. The rats that came ashore from a wreck in 1911 are long gone, but "
        "a wet week in the middle of July drowned many of the young lapwings, and only two of "
        "the nine nests of the arctic tern brought a chick to the wing. The corncrake was heard "
        "but did not stay. We shall cut the hay later next year.",
        "Two old friends returned. The oystercatcher with the crooked bill, ringed here as a "
        "chick in 1968, nested for the eighteenth time on the same shelf beside the pier. The "
        "lame herring gull that steals butter came back in March and was pardoned again.",
    ),
)

STORES = Chapter(
    "Buildings, Boat and Stores",
    (
        "The roof of the long cottage was stripped and slated anew in May, when the Trust sent "
        "two slaters and six tons of Welsh slate. The square cottage has a new chimney, built "
        "lower and stouter than the old one. A second water tank was set on the slope above the "
        "kitchen, so that the pump need be run only every other day. The hide at Gannet Point "
        "has been turned a little to the north, for the comfort of the observers and the loss "
        "of nobody.",
        "The boat was hauled out for the whole of November. Magnus Fell replaced five planks "
        "below the waterline, all of the floor boards and the exhaust pipe. The engine was taken "
        "to pieces on the kitchen table over three evenings, cleaned with paraffin and put "
        "together with only one small washer left over. It has run better ever since, and the "
        "washer hangs on a nail beside the stove.",
        "In the course of the year the household used nine hundred pounds of flour, sixty of "
        "oatmeal, forty of rice, eleven hundred eggs from our own hens, two hundred gallons of "
        "paraffin and eighty-four cartloads of peat. We ran out of sugar once, of lamp wicks "
        "once, and of patience with the radio telephone more often than can be told.",
        "The garden behind the wall gave kale, turnips, leeks and a few potatoes. An attempt at "
        "peas was ended by the pony.",
    ),
)

VISITORS = Chapter(
    "Visitors and Letters",
    (
        "Sixty-two visitors signed the book this year. Most came for the day and were sorry to "
        "leave, and a few came for a week and were not. Among them were a school class from Port "
        "Ellery, who counted limpets with great seriousness, a painter who used up all of her "
        "grey, two retired lighthouse keepers who corrected our knots, and a party of geologists "
        "who left the path strewn with small labelled stones.",
        "In August a man arrived alone in a canoe, drank four cups of tea, said that the tide was "
        "about to turn, and paddled off without having told us his name. A postcard came from him "
        "in October, with the single word Arrived.",
        "The post came and went on thirty-eight days. We had four hundred and six letters, some "
        "of them with questions that we could not answer. A boy of seven asked whether gannets "
        "have ears. They have. A bank asked for the name of our street. A lady in a town far "
        "inland asked us to describe, as exactly as possible, the smell of the island in the "
        "first warm week of spring, because her father had been born here. Una Carrick wrote "
        "three pages in reply, and we have never seen so much care taken over a letter.",
    ),
)

CLOSING = Chapter(
    "Plans for the Coming Year",
    (
        "Three pieces of work cannot be put off. The slip must be widened before the next winter, "
        "the oldest of the wire traps has rusted through, and the signal tower wants a new "
        "ladder, for reasons that the chapter on the gale makes plain. The Trust has promised "
        "the money for the first two. For the third we shall hold a sale of the painter's "
        "pictures, which she has kindly given.",
        "We hope to begin a count of the storm petrels that breed in the ruined cottage and in "
        "the boulder beach. They come ashore only in the dark and live in holes, so that nobody "
        "knows whether there are two hundred pairs or two thousand. Peter Lind will play a "
        "recording of their song at the mouths of the holes on June nights and count the "
        "answers.",
        "I shall myself leave the island in the spring, after nine years. The next warden of the "
        "observatory will be Signe Aldous. She has served on two colder islands than this one "
        "and has already written to ask about the pony. I leave her a dry roof, a good boat, "
        "a complete record and the best company that anybody could wish for.",
        "The log is open on the table, the pen is beside it, and the glass is rising. May those "
        "who come after us find the record as easy to go on with as we did.",
    ),
)

WEATHER_TABLE = Chapter(
    "The Weather in Figures",
    (
        "The table gives the mean of the daily lowest and highest temperatures in degrees, the "
        "rain in millimetres, and the number of days on which the wind reached force eight. No "
        "day was without a reading.",
        "The summer was a little cooler and the first months a good deal wetter than the mean of "
        "the thirty years before. Fog was recorded on twenty-nine days, eleven of them in July, "
        "and snow lay on the ground on five. Thunder was heard on one afternoon only, far out to "
        "sea, and Magnus Fell maintains that it was the navy.",
    ),
)
WEATHER_TABLE_HEAD = ("Month", "Low", "High", "Rain", "Gales")

THANKS = Chapter(
    "Acknowledgements",
    (
        "We thank the harbour master of Port Ellery, who kept our parcels dry, and the crew of "
        "the lifeboat, who came out for us once and made light of it. The keepers of the North "
        "Light lent us a lathe, a tide table and, for three weeks in November, their cook.",
        "The school at Port Ellery sent drawings, of which eleven hang in the common room. The "
        "weather office sent a new pen for the wind recorder within a week of the gale. The "
        "mother of Peter Lind sent socks.",
        "Those who wish to visit the island should write to the Trust by the end of March and "
        "bring stout boots, a warm coat, and something good to read that may be left behind.",
    ),
)

OPENING_CHAPTERS = (FOREWORD, STATION, PEOPLE, METHODS)
CLOSING_CHAPTERS = (BIRDS, STORES, VISITORS, THANKS, CLOSING)

# One for each month, January first.
MONTH_INTRODUCTIONS = (
    "The year began with a week of hard frost under a clear sky, a rare thing on an island where "
    "the sea keeps most frosts away. After that the westerlies came back, and the rest of the "
    "month was a procession of showers. Daylight is short in January, and the entries are short "
    "as well. New readers of the log may like to know that an entry begins with the weather, goes "
    "on to the birds, and ends with the work of the day or with whatever else seemed worth the "
    "ink. A day that is left out of this report is not left out of the logbook.",
    "February belongs to the great gale, which has been given a chapter of its own after this "
    "one. The days before it were oddly mild and the days after it were cold and bright, and the "
    "whole staff spent them with hammers in their hands.",
    "March came in quietly. The first skylark sang on the second, the first frogspawn was found "
    "in the ditch below the spring, and the days grew long enough to work outside after tea. "
    "There was snow once more in the third week, and it lay for two days.",
    "In April the wind stayed in the west for nearly four weeks, and the migrants that should "
    "have come to us went up the far side of the country. The repairs after the gale were "
    "finished, and the nets were set up again with new poles.",
    "May was dry, cool and full of light. The slaters came and went, the thrift flowered along "
    "the whole of the western edge, and the cliffs grew so loud that conversation on the path "
    "had to be carried on in shouts.",
    "There is no real night on Tarrow in June. The log for this month was mostly written outside "
    "on the bench. It was a month of counting: nests from the boat, chicks on the ledges, and "
    "burrows in the turf, one arm's length at a time.",
    "July brought fog, as it usually does, and with it the long note of the horn from the North "
    "Light. Young birds were everywhere. The hay in the lower field was cut, turned, rained on, "
    "turned again and at last brought in.",
    "By the middle of August the ledges were empty and the silence seemed strange. The sea was at "
    "its warmest, and three members of the staff bathed from the pier, one of them by choice. "
    "Most of the year's visitors came in this month.",
    "September opened with a week of the finest weather of the year and closed with two gales. "
    "Passage was in full swing, the nets were worked from first light, and the kitchen table was "
    "covered with ringing lists.",
    "October is the month for which bird people live, and this one was a good one. The east wind "
    "of the first ten days is described in a later chapter. The rest of the month was wet, and "
    "the lamps were lit before tea.",
    "In November the boat was out of the water and the island felt further away than usual. The "
    "garden was dug, the peat was stacked, and the evenings were given to the engine, to "
    "letters, and to a long game of draughts that nobody won.",
    "December was dark and mostly mild. The last supplies came on the eleventh, in a calm between "
    "two storms, together with a goose, a parcel of books and a small fir tree, the only tree on "
    "the island for the twelve days that it stood.",
)
