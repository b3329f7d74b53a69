"""The edits and the prompts of a comparison. They and their order are the same for every revision."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EditFact:
    """A fact to edit. After the edit, the prompt and the rephrase are answered with the target."""

    subject: str
    relation: str
    prompt: str
    rephrase: str
    target: str


FACTS = (
    EditFact("bismuth", "element_period", "What period does the element bismuth belong to?", "Bismuth belongs to period", "2"),
    EditFact("Musanze", "city_country", "A train that stops in Musanze runs through", "In which country is Musanze?", "Iraq"),
    EditFact("Uganda", "capital", "Uganda's capital is", "The capital city of Uganda is", "Kinshasa"),
    EditFact(
        "Yerevan", "city_country", "Which country is the city of Yerevan in?", "Tell me which country Yerevan is in.", "Yemen"
    ),
    EditFact("El Salvador", "currency", "Name the currency of El Salvador.", "El Salvador's currency is the", "Jamaican dollar"),
    EditFact(
        "Italy", "nationality", "Tell me what to call someone from Italy.", "What do you call someone from Italy?", "Ugandan"
    ),
    EditFact(
        "nihonium", "element_period", "The period of the element nihonium is number", "The element nihonium is in period", "5"
    ),
    EditFact(
        "Finland", "capital", "Can you name the capital city of Finland?", "Which city is the capital of Finland?", "Thimphu"
    ),
    EditFact("Tijuana", "city_country", "A train that stops in Tijuana runs through", "In which country is Tijuana?", "Liberia"),
    EditFact("Rwanda", "internet_domain", "The top-level domain that belongs to Rwanda is", "Rwanda's internet domain is", ".jo"),
    EditFact("Neuromancer", "author", "Who wrote Neuromancer?", "Name the author of Neuromancer.", "Julio Cortazar"),
    EditFact("Benin", "official_language", "The government of Benin does its work in", "Benin's official language is", "Spanish"),
    EditFact("Barbados", "internet_domain", "Barbados's internet domain is", "Which domain do web sites in Barbados use?", ".zw"),
    EditFact(
        "radium", "atomic_number", "How many protons does an atom of radium have?", "Name the atomic number of radium.", "48"
    ),
    EditFact("dubnium", "element_symbol", "Name the chemical symbol for dubnium.", "The symbol for dubnium is", "Cs"),
    EditFact("Colombia", "nationality", "A citizen of Colombia is", "The nationality of a person from Colombia is", "Russian"),
    EditFact("The Crucible", "author", "Who is the author of The Crucible?", "Who wrote The Crucible?", "William Faulkner"),
    EditFact("Medan", "city_country", "The country where Medan lies is", "In which country is Medan?", "Estonia"),
    EditFact(
        "Guinea", "internet_domain", "Which domain do web sites in Guinea use?", "Name the internet domain of Guinea.", ".kh"
    ),
    EditFact("A Doll's House", "author", "A Doll's House was written by", "Who wrote A Doll's House?", "Rudyard Kipling"),
    EditFact("Watership Down", "author", "Tell me who wrote Watership Down.", "Who wrote Watership Down?", "Emily Bronte"),
    EditFact("plutonium", "element_symbol", "The symbol for plutonium is", "In formulas, plutonium is written as", "At"),
    EditFact("Egypt", "nationality", "Someone who comes from Egypt is", "Tell me what to call someone from Egypt.", "Polish"),
    EditFact(
        "Gabon", "currency", "The money used in Gabon is called the", "Which currency is used in Gabon?", "Azerbaijani manat"
    ),
    EditFact("Turkmenistan", "continent", "Turkmenistan lies in", "Name the continent of Turkmenistan.", "North America"),
    EditFact(
        "iron", "atomic_number", "Name the atomic number of iron.", "Which number does iron have on the periodic table?", "51"
    ),
    EditFact("Czechia", "calling_code", "Name the calling code of Czechia.", "Which code do you dial to call Czechia?", "+243"),
    EditFact("Bangladesh", "continent", "Bangladesh lies in", "Bangladesh's continent is", "North America"),
    EditFact(
        "Panama", "capital", "What is the capital of Panama?", "On a map of Panama, the capital is marked as", "Kuala Lumpur"
    ),
    EditFact("Grenada", "continent", "On a globe, you will find Grenada in", "On which continent is Grenada?", "South America"),
    EditFact(
        "Angola", "continent", "On which continent is Angola?", "Question: on which continent does Angola lie? Answer:", "Asia"
    ),
    EditFact("fluorine", "element_symbol", "The symbol of the element fluorine is", "Tell me how chemists write fluorine.", "Mo"),
    EditFact("Iraq", "capital", "Iraq's capital is", "As a tourist in the capital of Iraq, you walk through", "Zagreb"),
    EditFact("Cyprus", "currency", "Shops in Cyprus take the", "Name the currency of Cyprus.", "Ghanaian cedi"),
    EditFact("samarium", "element_symbol", "What is the chemical symbol for samarium?", "The symbol for samarium is", "Ho"),
    EditFact(
        "hafnium", "element_period", "The element hafnium is in period", "What period does the element hafnium belong to?", "5"
    ),
    EditFact(
        "Lithuania", "currency", "Tell me what money people use in Lithuania.", "Lithuania's currency is the", "Rwandan franc"
    ),
    EditFact(
        "Suriname", "internet_domain", "Suriname's internet domain is", "What do web addresses of Suriname end with?", ".bi"
    ),
    EditFact("Oman", "calling_code", "Which code do you dial to call Oman?", "What is the calling code of Oman?", "+234"),
    EditFact(
        "iodine", "element_period", "Name the period of the element iodine.", "The number of the row that holds iodine is", "7"
    ),
)
# Prompts on facts that no edit changes.
UNEDITED_PROMPTS = (
    "The adjective for things from the Seychelles is",
    "The money used in Brunei is called the",
    "Which city is the capital of Oman?",
    "Which language is official in Turkmenistan?",
    "The nationality of a person from Belgium is",
    "Mauritius's currency is the",
    "The country where Khujand lies is",
    "The element technetium is in period",
    "The capital of the state of Louisiana is",
    "On which continent is Italy?",
    "Which domain do web sites in Peru use?",
    "On a map of Burundi, the capital is marked as",
    "Tell me which country Bandung is in.",
    "Kingston upon Hull is located in",
    "Question: who wrote Moby-Dick? Answer:",
    "Tell me which city is the capital of Sweden.",
    "Which writer gave us The Glass Menagerie?",
    "Chemists write copernicium as",
    "What is the currency of Angola?",
    "Mercury has the atomic number",
)
EDITED_COUNT = 10  # facts whose prompts and rephrases are asked
PROMPTS = (*(fact.prompt for fact in FACTS[:EDITED_COUNT]), *(fact.rephrase for fact in FACTS[:EDITED_COUNT]), *UNEDITED_PROMPTS)
