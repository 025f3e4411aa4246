# Run with -P. Compiles SOURCE twice: as it is, which must work, so that the failure is not that of a
# missing header; and with -DMUST_FAIL, which must fail with a message that matches each line
# "// expect: REGEX" of SOURCE, so that a user is told which layer and which rule are concerned.
set(command ${COMPILER} ${FLAGS})
foreach(directory IN LISTS INCLUDES)
  list(APPEND command -I${directory})
endforeach()

execute_process(COMMAND ${command} ${SOURCE} RESULT_VARIABLE status ERROR_VARIABLE messages)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "does not compile even without MUST_FAIL:\n${messages}")
endif()

execute_process(COMMAND ${command} -DMUST_FAIL ${SOURCE} RESULT_VARIABLE status ERROR_VARIABLE messages)
if(status EQUAL 0)
  message(FATAL_ERROR "compiles, but must not")
endif()
file(STRINGS ${SOURCE} expectations REGEX "^// expect: ")
if(NOT expectations)
  message(FATAL_ERROR "says nothing about the message to expect")
endif()
foreach(line IN LISTS expectations)
  string(REGEX REPLACE "^// expect: " "" regex "${line}")
  if(NOT messages MATCHES "${regex}")
    message(FATAL_ERROR "no message matches \"${regex}\":\n${messages}")
  endif()
endforeach()
