# cmake -DPROGRAM=... -DEXPECTED=... -P expect.cmake: fails unless PROGRAM prints what the file EXPECTED holds.
execute_process(COMMAND ${PROGRAM} OUTPUT_VARIABLE printed COMMAND_ERROR_IS_FATAL ANY)
file(READ ${EXPECTED} expected)
if(NOT printed STREQUAL expected)
  message(FATAL_ERROR "${PROGRAM} printed\n${printed}\ninstead of what is in ${EXPECTED}")
endif()
