# Rscript sva_combat.R IN.csv FOLDER MEAN_ONLY:REFERENCE:COVARIATES ...
# ComBat of R's sva (parametric priors), one FOLDER/N.csv for the Nth variant. IN.csv: columns batch,
# age, sex, then features, a row a patient. REFERENCE and COVARIATES (by commas) may be "none".
suppressMessages(library(sva))
given <- commandArgs(trailingOnly = TRUE)
table <- read.csv(given[1], check.names = FALSE)
features <- setdiff(colnames(table), c("batch", "age", "sex"))
for (i in seq_along(given[-(1:2)])) {
  variant <- strsplit(given[i + 2], ":")[[1]]
  mod <- NULL
  if (variant[3] != "none") {
    mod <- model.matrix(as.formula(paste("~", gsub(",", "+", variant[3]))), data = table)
  }
  harmonized <- suppressMessages(ComBat(
    t(as.matrix(table[, features])), table$batch, mod = mod, mean.only = variant[1] == "TRUE",
    ref.batch = if (variant[2] == "none") NULL else variant[2]
  ))
  write.csv(t(harmonized), file.path(given[2], paste0(i, ".csv")), row.names = FALSE)
}
